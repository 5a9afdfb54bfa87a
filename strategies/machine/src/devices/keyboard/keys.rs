//! Keys of a US keyboard and the scancodes that they send.
//!
//! A key is named by its set 1 code. Keyboards send set 2, which the controller translates back
//! (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller").

/// Set 2 codes by set 1 code. F7 is not among them: its set 2 code 0x83 is above the table.
#[rustfmt::skip]
const SET_2: [u8; 0x80] = [
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
    0x0b, 0x02, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0x7f, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
    0x47, 0x4f, 0x56, 0x5e, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6f,
    0x13, 0x19, 0x39, 0x51, 0x53, 0x5c, 0x5f, 0x62, 0x63, 0x64, 0x65, 0x67, 0x68, 0x6a, 0x6d, 0x6e,
];

/// Set 1 code of F7.
const F7: u8 = 0x41;
/// Set 2 code of F7.
const F7_SET_2: u8 = 0x83;

/// What the controller makes of a set 2 code.
pub(super) fn translate(set_2: u8) -> u8 {
    match set_2 {
        F7_SET_2 => F7,
        // Print Screen with Alt.
        0x84 => 0x54,
        code if code < 0x80 => INVERSE[usize::from(code)],
        // Answers of the keyboard pass.
        code => code,
    }
}

const INVERSE: [u8; 0x80] = {
    let mut inverse = [0; 0x80];
    let mut code = 0;
    while code < 0x80 {
        inverse[SET_2[code] as usize] = code as u8;
        code += 1;
    }
    inverse
};

/// A key, by its set 1 code; the high byte is the prefix 0xE0 of the keys that the 101-key keyboard
/// added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Key(u16);

/// A key goes down or up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeyEvent {
    /// Which key.
    pub key: Key,
    /// Whether it goes down.
    pub pressed: bool,
}

macro_rules! keys {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        impl Key { $(#[doc = $doc] pub const $name: Key = Key($code);)* }
    };
}

keys! {
    ESCAPE = 0x01, "Esc.";
    BACKSPACE = 0x0e, "Backspace.";
    TAB = 0x0f, "Tab.";
    ENTER = 0x1c, "Enter.";
    LEFT_CONTROL = 0x1d, "The left Ctrl.";
    LEFT_SHIFT = 0x2a, "The left Shift.";
    LEFT_ALT = 0x38, "The left Alt.";
    CAPS_LOCK = 0x3a, "Caps Lock.";
    NUM_LOCK = 0x45, "Num Lock.";
    SCROLL_LOCK = 0x46, "Scroll Lock.";
    RIGHT_CONTROL = 0xe01d, "The right Ctrl.";
    RIGHT_ALT = 0xe038, "The right Alt.";
    HOME = 0xe047, "Home.";
    UP = 0xe048, "The arrow up.";
    PAGE_UP = 0xe049, "Page Up.";
    LEFT = 0xe04b, "The arrow to the left.";
    RIGHT = 0xe04d, "The arrow to the right.";
    END = 0xe04f, "End.";
    DOWN = 0xe050, "The arrow down.";
    PAGE_DOWN = 0xe051, "Page Down.";
    INSERT = 0xe052, "Insert.";
    DELETE = 0xe053, "Delete.";
}

/// The characters of the keys from set 1 code 0x02 on, without and with Shift. A space stands where
/// a key has no character.
const PLAIN: &str = "1234567890-=  qwertyuiop[]  asdfghjkl;'` \\zxcvbnm,./";
const SHIFTED: &str = "!@#$%^&*()_+  QWERTYUIOP{}  ASDFGHJKL:\"~ |ZXCVBNM<>?";

impl Key {
    /// The function key F1 to F12.
    #[must_use]
    pub fn function(number: u8) -> Option<Key> {
        match number {
            1..=10 => Some(Key(0x3a + u16::from(number))),
            11 | 12 => Some(Key(0x4c + u16::from(number))),
            _ => None,
        }
    }

    /// The key that types a character on a US keyboard, and whether Shift goes with it.
    #[must_use]
    pub fn of_character(character: char) -> Option<(Key, bool)> {
        let find = |characters: &str| characters.chars().position(|typed| typed == character);
        let key = |position: usize| Key(2 + position as u16);
        match character {
            ' ' => Some((Key(0x39), false)),
            '\n' | '\r' => Some((Key::ENTER, false)),
            '\t' => Some((Key::TAB, false)),
            '\u{8}' | '\u{7f}' => Some((Key::BACKSPACE, false)),
            '\u{1b}' => Some((Key::ESCAPE, false)),
            _ => find(PLAIN)
                .map(|position| (key(position), false))
                .or_else(|| find(SHIFTED).map(|position| (key(position), true))),
        }
    }

    /// The events that type a character: control characters are typed with Ctrl, and what is not on
    /// a US keyboard gives nothing.
    #[must_use]
    pub fn strokes(character: char) -> Vec<KeyEvent> {
        let (typed, modifier) = match (Key::of_character(character), u32::from(character)) {
            (Some((key, true)), _) => (Some(key), Some(Key::LEFT_SHIFT)),
            (Some((key, false)), _) => (Some(key), None),
            (None, code @ 1..=26) => {
                let letter = char::from(b'`' + code as u8);
                (Key::of_character(letter).map(|(key, _)| key), Some(Key::LEFT_CONTROL))
            }
            _ => (None, None),
        };
        let Some(key) = typed else { return Vec::new() };
        let keys = modifier.into_iter().chain([key]);
        let down = keys.clone().map(|key| KeyEvent { key, pressed: true });
        let up = keys.rev().map(|key| KeyEvent { key, pressed: false });
        down.chain(up).collect()
    }
}

impl KeyEvent {
    /// The bytes that a keyboard sends, in set 2.
    pub(super) fn set_2(self) -> impl Iterator<Item = u8> {
        let [prefix, code] = self.key.0.to_be_bytes();
        let code = if code == F7 { F7_SET_2 } else { SET_2[usize::from(code & 0x7f)] };
        let prefix = (prefix != 0).then_some(prefix);
        let release = (!self.pressed).then_some(0xf0);
        prefix.into_iter().chain(release).chain([code])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translation_is_the_inverse_of_what_keys_send() {
        for code in 0..0x80 {
            let event = KeyEvent { key: Key(code), pressed: true };
            let sent: Vec<u8> = event.set_2().collect();
            assert_eq!(sent.len(), 1);
            assert_eq!(u16::from(translate(sent[0])), code);
        }
        assert_eq!(translate(0xfa), 0xfa);
    }

    #[test]
    fn releases_and_added_keys_have_prefixes() {
        let bytes = |key, pressed| KeyEvent { key, pressed }.set_2().collect::<Vec<_>>();
        assert_eq!(bytes(Key::ESCAPE, true), [0x76]);
        assert_eq!(bytes(Key::ESCAPE, false), [0xf0, 0x76]);
        assert_eq!(bytes(Key::UP, false), [0xe0, 0xf0, 0x75]);
        assert_eq!(bytes(Key::function(7).unwrap(), true), [0x83]);
    }

    #[test]
    fn characters_lie_on_their_keys() {
        for (character, code, shift) in [
            ('1', 0x02, false),
            ('=', 0x0d, false),
            ('q', 0x10, false),
            (']', 0x1b, false),
            ('A', 0x1e, true),
            ('`', 0x29, false),
            ('\\', 0x2b, false),
            ('z', 0x2c, false),
            ('?', 0x35, true),
            (' ', 0x39, false),
        ] {
            assert_eq!(Key::of_character(character), Some((Key(code), shift)), "{character:?}");
        }
        assert_eq!(Key::of_character('ä'), None);
    }

    #[test]
    fn shifted_and_control_characters_are_typed_with_their_modifier() {
        let codes = |character| -> Vec<(u16, bool)> {
            Key::strokes(character).iter().map(|event| (event.key.0, event.pressed)).collect()
        };
        assert_eq!(codes('a'), [(0x1e, true), (0x1e, false)]);
        assert_eq!(codes('!'), [(0x2a, true), (0x02, true), (0x02, false), (0x2a, false)]);
        assert_eq!(codes('\u{3}')[..2], [(0x1d, true), (0x2e, true)]);
        assert_eq!(codes('€'), []);
    }

    #[test]
    fn function_keys_have_a_gap() {
        assert_eq!(Key::function(1), Some(Key(0x3b)));
        assert_eq!(Key::function(10), Some(Key(0x44)));
        assert_eq!(Key::function(11), Some(Key(0x57)));
        assert_eq!(Key::function(0), None);
    }
}
