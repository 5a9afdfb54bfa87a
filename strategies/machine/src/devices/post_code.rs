//! Port 0x80: firmware writes its progress here, and Linux writes to it for the delay that an ISA
//! cycle takes.

use crate::bus::Device;
use crate::devices::state::saved;

/// A latch that shows the last byte written.
#[derive(Debug, Default)]
pub struct PostCode {
    last: u8,
}

saved! {
    PostCode as PostCodeState;
    saved { last: u8, }
    kept {}
}

impl Device for PostCode {
    fn read(&mut self, _offset: u32, data: &mut [u8]) {
        data[0] = self.last;
    }

    fn write(&mut self, _offset: u32, data: &[u8]) {
        self.last = data[0];
    }

    fn reset(&mut self) {
        self.last = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::testing::read;

    #[test]
    fn the_last_code_reads_back() {
        let mut port = PostCode::default();
        port.write(0, &[0x55]);
        port.write(0, &[0xa3]);
        assert_eq!(read(&mut port, 0), 0xa3);
    }
}
