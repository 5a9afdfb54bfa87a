//! The bits of the 16550A's registers.

bitflags::bitflags! {
    /// IER.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
    pub(super) struct InterruptEnable: u8 {
        const RECEIVED_DATA = 1;
        const TRANSMITTER_EMPTY = 2;
        const LINE_STATUS = 4;
        const MODEM_STATUS = 8;
    }

    /// FCR. The receive trigger level is a number of two bits; DMA mode does nothing on a PC.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
    pub(super) struct FifoControl: u8 {
        const ENABLE = 0x01;
        const CLEAR_RECEIVER = 0x02;
        const TRIGGER = 0xc0;
    }

    /// MCR.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
    pub(super) struct ModemControl: u8 {
        const DTR = 0x01;
        const RTS = 0x02;
        const OUT1 = 0x04;
        const OUT2 = 0x08;
        const LOOPBACK = 0x10;
    }

    /// LSR.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct LineStatus: u8 {
        const DATA_READY = 0x01;
        const OVERRUN = 0x02;
        const TRANSMITTER_EMPTY = 0x20;
        const TRANSMITTER_IDLE = 0x40;
    }
}

/// IIR's low four bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Identification {
    ModemStatus = 0x0,
    None = 0x1,
    TransmitterEmpty = 0x2,
    ReceivedData = 0x4,
    LineStatus = 0x6,
    CharacterTimeout = 0xc,
}

impl FifoControl {
    /// Received bytes at which the guest wants an interrupt.
    pub(super) fn trigger_level(self) -> usize {
        match self.bits() >> 6 {
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }
}

impl ModemControl {
    /// In loopback, the status that the control outputs make: RTS is CTS, DTR is DSR, OUT1 is RI,
    /// OUT2 is DCD.
    pub(super) fn looped_back(self) -> Option<u8> {
        let wire = |output, input| if self.contains(output) { input } else { 0u8 };
        self.contains(ModemControl::LOOPBACK).then(|| {
            wire(ModemControl::RTS, 0x10)
                | wire(ModemControl::DTR, 0x20)
                | wire(ModemControl::OUT1, 0x40)
                | wire(ModemControl::OUT2, 0x80)
        })
    }
}
