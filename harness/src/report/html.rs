//! Pieces of HTML. All text from files passes through [`escape`].

pub(super) use crate::plot::escape;
use crate::records::Outcome;

/// A section with its heading. Nothing where it has no contents.
pub(super) fn section(id: &str, title: &str, contents: &str) -> String {
    if contents.is_empty() {
        return String::new();
    }
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{contents}</section>\n")
}

/// A paragraph of text that is HTML already.
pub(super) fn paragraph(html: &str) -> String {
    format!("<p>{html}</p>\n")
}

/// A table in a box that scrolls sideways where the window is narrow. Cells are HTML already.
#[derive(Debug, Default)]
pub(super) struct Table {
    head: Vec<String>,
    rows: String,
}

impl Table {
    /// A table with these column headings, which are text.
    pub(super) fn new<S: AsRef<str>>(head: impl IntoIterator<Item = S>) -> Table {
        let head = head.into_iter().map(|text| escape(text.as_ref())).collect();
        Table { head, rows: String::new() }
    }

    /// Adds a row: its heading, which is text, and its cells, which are `<td>` elements.
    pub(super) fn row(&mut self, heading: &str, cells: &[String]) {
        let cells = cells.concat();
        self.rows += &format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(heading));
    }

    /// The table as HTML. Nothing where it has no rows.
    pub(super) fn html(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let head: String =
            self.head.iter().map(|text| format!("<th scope=\"col\">{text}</th>")).collect();
        format!(
            "<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{}</tbody>\n\
             </table></div>\n",
            self.rows
        )
    }
}

/// A cell of text.
pub(super) fn text(text: &str) -> String {
    format!("<td>{}</td>", escape(text))
}

/// A cell with a number.
pub(super) fn number(text: &str) -> String {
    format!("<td class=\"number\">{}</td>", escape(text))
}

/// A cell with a number and a smaller line under it.
pub(super) fn number_with(main: &str, small: &str) -> String {
    format!("<td class=\"number\">{}<small>{}</small></td>", escape(main), escape(small))
}

/// A cell with an outcome. `title` is shown when the pointer rests on it.
pub(super) fn outcome(outcome: Outcome, title: &str) -> String {
    let name = outcome.name();
    format!("<td><span class=\"badge {name}\" title=\"{}\">{name}</span></td>", escape(title))
}

/// Something long that is folded away at first.
pub(super) fn folded(summary: &str, contents: &str) -> String {
    if contents.is_empty() {
        return String::new();
    }
    format!("<details><summary>{}</summary>\n{contents}</details>\n", escape(summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let mut table = Table::new(["<b>", "x"]);
        table.row("<script>", &[text("a & b"), outcome(Outcome::Wrong, "\"><img src=x>")]);
        let html = table.html();
        assert!(!html.contains("<b>") && !html.contains("<script>") && !html.contains("<img"));
        assert!(html.contains("a &amp; b") && html.contains("&quot;&gt;&lt;img"));
    }

    #[test]
    fn what_is_empty_is_left_out() {
        assert_eq!(Table::new(["a"]).html(), "");
        assert_eq!(section("a", "A", ""), "");
        assert_eq!(folded("a", ""), "");
    }
}
