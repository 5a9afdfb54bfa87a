//! The names of addresses.

/// A name for an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    /// The linear address.
    pub address: u32,
    /// How many bytes it names; 0 where the file does not say.
    pub size: u32,
    /// The name.
    pub name: String,
    /// What is there.
    pub kind: SymbolKind,
}

/// What a symbol names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SymbolKind {
    /// A function.
    Function,
    /// Data, even where it lies among code.
    Data,
    /// The file does not say: labels of assembly code, as a rule.
    Unknown,
}

/// The symbols of an image, by address; those of functions before others at the same address.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Symbols(Vec<Symbol>);

impl Symbols {
    /// Sorts them.
    #[must_use]
    pub fn new(mut symbols: Vec<Symbol>) -> Symbols {
        symbols.sort_by(|a, b| (a.address, a.kind, &a.name).cmp(&(b.address, b.kind, &b.name)));
        Symbols(symbols)
    }

    /// All of them, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Symbol> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The symbol at or last before `address`, which must not lie before `floor`.
    #[must_use]
    pub fn at(&self, address: u32, floor: u32) -> Option<&Symbol> {
        let next = self.0.partition_point(|symbol| symbol.address <= address);
        let last = self.0[..next].last().filter(|symbol| symbol.address >= floor)?;
        let first = self.0.partition_point(|symbol| symbol.address < last.address);
        self.0.get(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_name_of_the_function_before_it() {
        let symbol =
            |address, name: &str, kind| Symbol { address, size: 0, name: name.into(), kind };
        let symbols = Symbols::new(vec![
            symbol(0x2000, "label", SymbolKind::Unknown),
            symbol(0x1000, "first", SymbolKind::Function),
            symbol(0x2000, "second", SymbolKind::Function),
        ]);
        let name = |address, floor| symbols.at(address, floor).map(|symbol| symbol.name.as_str());
        assert_eq!(name(0xfff, 0), None);
        assert_eq!(name(0x1fff, 0), Some("first"));
        assert_eq!(name(0x1fff, 0x1001), None);
        assert_eq!(name(0x2004, 0), Some("second"));
    }
}
