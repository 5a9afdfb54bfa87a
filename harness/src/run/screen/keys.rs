//! From what a terminal sends to keys of the guest's keyboard.

use machine::devices::{Key, KeyEvent};

/// Control sequences of keys, behind `ESC [` or `ESC O` (xterm).
const SEQUENCES: [(&[u8], Key); 14] = [
    (b"A", Key::UP),
    (b"B", Key::DOWN),
    (b"C", Key::RIGHT),
    (b"D", Key::LEFT),
    (b"H", Key::HOME),
    (b"F", Key::END),
    (b"1~", Key::HOME),
    (b"2~", Key::INSERT),
    (b"3~", Key::DELETE),
    (b"4~", Key::END),
    (b"5~", Key::PAGE_UP),
    (b"6~", Key::PAGE_DOWN),
    (b"7~", Key::HOME),
    (b"8~", Key::END),
];

/// The same for function keys, by their number.
const FUNCTIONS: [(&[u8], u8); 16] = [
    (b"P", 1),
    (b"Q", 2),
    (b"R", 3),
    (b"S", 4),
    (b"11~", 1),
    (b"12~", 2),
    (b"13~", 3),
    (b"14~", 4),
    (b"15~", 5),
    (b"17~", 6),
    (b"18~", 7),
    (b"19~", 8),
    (b"20~", 9),
    (b"21~", 10),
    (b"23~", 11),
    (b"24~", 12),
];

const ESCAPE: u8 = 0x1b;

/// Key strokes for bytes that came from a terminal at once. A lone escape is the key Esc.
pub(in crate::run) fn strokes(typed: &[u8]) -> Vec<KeyEvent> {
    let mut events = Vec::new();
    let mut rest = typed;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == ESCAPE
            && let Some((key, length)) = sequence(after)
        {
            events.extend(press(key));
            rest = &after[length..];
        } else {
            events.extend(stroke(first));
        }
    }
    events
}

/// The key of a sequence behind its escape, and its bytes.
fn sequence(bytes: &[u8]) -> Option<(Key, usize)> {
    let (b'[' | b'O', code) = bytes.split_first()? else { return None };
    let functions =
        FUNCTIONS.iter().filter_map(|&(code, number)| Some((code, Key::function(number)?)));
    let mut all = SEQUENCES.into_iter().chain(functions);
    all.find(|(known, _)| code.starts_with(known)).map(|(known, key)| (key, known.len() + 1))
}

fn press(key: Key) -> [KeyEvent; 2] {
    [true, false].map(|pressed| KeyEvent { key, pressed })
}

fn stroke(byte: u8) -> Vec<KeyEvent> {
    match byte {
        // Tab, line feed, carriage return, backspace and escape are keys of their own.
        0x01..=0x07 | 0x0b | 0x0c | 0x0e..=0x1a => {
            let letter = char::from(byte + b'a' - 1);
            let control = |pressed| KeyEvent { key: Key::LEFT_CONTROL, pressed };
            let mut events = vec![control(true)];
            events.extend(Key::strokes(letter));
            events.push(control(false));
            events
        }
        _ => Key::strokes(char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_keys() {
        assert_eq!(strokes(b"\x1b[A"), press(Key::UP));
        assert_eq!(strokes(b"\x1b[3~"), press(Key::DELETE));
        assert_eq!(strokes(b"\x1bOP"), press(Key::function(1).unwrap()));
        assert_eq!(strokes(b"\x1b[15~"), press(Key::function(5).unwrap()));
        assert_eq!(strokes(b"\x1b"), press(Key::ESCAPE));
    }

    #[test]
    fn control_goes_with_its_letter() {
        let events = strokes(b"\x03");
        assert_eq!(events.len(), 4);
        assert_eq!((events[0].key, events[0].pressed), (Key::LEFT_CONTROL, true));
        assert_eq!(events[1..3], Key::strokes('c'));
        assert_eq!((events[3].key, events[3].pressed), (Key::LEFT_CONTROL, false));
    }

    #[test]
    fn text_is_typed() {
        assert_eq!(
            strokes(b"ls\r"),
            [Key::strokes('l'), Key::strokes('s'), press(Key::ENTER).to_vec()].concat()
        );
    }
}
