//! How code and large numbers are written down in TOML: `"8b 45 10"`, and with a link
//! `"75 00 @1.1 relative 3"`: at byte 1, one byte, the distance to item 3.

use super::{Item, Link, LinkKind};
use std::fmt::Write;

const KINDS: [(LinkKind, &str); 3] =
    [(LinkKind::Relative, "relative"), (LinkKind::Offset, "offset"), (LinkKind::Data, "data")];

fn write(item: &Item) -> String {
    let bytes: Vec<String> = item.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = bytes.join(" ");
    if let Some(Link { at, size, kind, target }) = item.link {
        let name = KINDS.iter().find(|(each, _)| *each == kind).map_or("", |(_, name)| name);
        // Writing to a string cannot fail.
        let _ = write!(text, " @{at}.{size} {name} {target}");
    }
    text
}

fn read(text: &str) -> Option<Item> {
    let (bytes, link) = match text.split_once('@') {
        Some((bytes, link)) => (bytes, Some(read_link(link)?)),
        None => (text, None),
    };
    let bytes: Vec<u8> = bytes.split_whitespace().map(read_byte).collect::<Option<_>>()?;
    let fits = |link: &Link| {
        matches!(link.size, 1 | 2 | 4)
            && link.at.checked_add(link.size).is_some_and(|end| end <= bytes.len())
    };
    link.as_ref().is_none_or(fits).then(|| Item { bytes: bytes.clone(), link })
}

fn read_byte(text: &str) -> Option<u8> {
    let is_byte = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(text, 16).ok())?
}

fn read_link(text: &str) -> Option<Link> {
    let mut words = text.split_whitespace();
    let (at, size) = words.next()?.split_once('.')?;
    let name = words.next()?;
    let (kind, _) = KINDS.iter().find(|(_, each)| *each == name)?;
    let target = words.next()?.parse().ok()?;
    Some(Link { at: at.parse().ok()?, size: size.parse().ok()?, kind: *kind, target })
}

/// Items as strings.
pub(super) mod items {
    use super::super::Item;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        items: &[Item],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(items.iter().map(super::write))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Item>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let item = |text: &String| {
            super::read(text).ok_or_else(|| D::Error::custom(format!("no code: {text:?}")))
        };
        texts.iter().map(item).collect()
    }
}

/// Numbers of 64 bits, which TOML has only half of.
pub(super) mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &u64,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:#018x}"))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        u64::from_str_radix(digits, 16)
            .map_err(|_| D::Error::custom(format!("no hexadecimal number: {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_read_as_it_was_written() {
        let link = Link { at: 1, size: 4, kind: LinkKind::Offset, target: 7 };
        for link in [None, Some(link)] {
            let item = Item { bytes: vec![0x68, 0, 0, 0, 0], link };
            assert_eq!(read(&write(&item)), Some(item));
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for text in ["8", "zz", "75 00 @1.1", "75 00 @1.2 relative 0", "75 00 @1.1 by 0", "123"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
