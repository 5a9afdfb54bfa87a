//! Sample images, built here so that none has to be kept as a file.

/// Bytes that are set at offsets; grows as needed.
#[derive(Clone, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Bytes {
        self.0.resize(self.0.len().max(at + bytes.len()), 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn u16(&mut self, at: usize, value: u16) -> &mut Bytes {
        self.put(at, &value.to_le_bytes())
    }

    fn u32(&mut self, at: usize, value: u32) -> &mut Bytes {
        self.put(at, &value.to_le_bytes())
    }

    fn u32s(&mut self, at: usize, values: &[u32]) -> &mut Bytes {
        for (index, value) in values.iter().enumerate() {
            self.u32(at + index * 4, *value);
        }
        self
    }
}

const MULTIBOOT: u32 = 0x1bad_b002;

/// A multiboot header: magic, flags, checksum, and what follows them.
fn header(flags: u32, rest: &[u32]) -> Vec<u32> {
    let checksum = 0u32.wrapping_sub(MULTIBOOT).wrapping_sub(flags);
    [&[MULTIBOOT, flags, checksum], rest].concat()
}

/// Where [`elf`]'s text lies in the file.
pub(crate) const TEXT_OFFSET: usize = 0x100;
/// What [`elf`] loads at 1 MiB behind its multiboot header.
pub(crate) const TEXT: &[u8] = b"\xfa\xf4text of the kernel";
/// Where [`elf`]'s text begins in memory, header included.
pub(crate) const TEXT_ADDRESS: u32 = 0x10_0000;
/// Where [`elf`] is entered.
pub(crate) const ENTRY: u32 = TEXT_ADDRESS + 48;
/// What [`elf`] loads at [`DATA_ADDRESS`].
pub(crate) const DATA: &[u8] = b"initialized data";
/// Where [`elf`]'s data begin in memory.
pub(crate) const DATA_ADDRESS: u32 = 0x10_2004;
/// Bytes of [`elf`]'s data with its bss.
pub(crate) const DATA_MEMORY: u32 = 0x3000;
/// The difference of linear and physical addresses in [`elf`].
pub(crate) const LINEAR: u32 = 0xc000_0000;
/// The contents of the section that [`elf`] does not load.
pub(crate) const STRINGS: &[u8] = b"\0.strings\0";

/// A higher-half ELF kernel with two segments, one of them with bss, and three sections, one of
/// which is not loaded. The section headers are the file's last bytes.
pub(crate) fn elf() -> Vec<u8> {
    elf_with_flags(3, &[])
}

/// As [`elf`], with the multiboot header's flags and what follows its checksum.
pub(crate) fn elf_with_flags(flags: u32, rest: &[u32]) -> Vec<u8> {
    let data = TEXT_OFFSET + 0x80;
    let strings = data + DATA.len();
    let sections = strings + STRINGS.len();
    let mut image = Bytes::default();
    image.put(0, b"\x7fELF\x01\x01\x01").u16(16, 2).u16(18, 3).u32(20, 1);
    image.u32s(24, &[ENTRY + LINEAR, 52, sections as u32, 0]).u16(40, 52);
    image.u16(42, 32).u16(44, 2).u16(46, 40).u16(48, 3).u16(50, 2);
    let text_size = (48 + TEXT.len()) as u32;
    let (text_offset, text_linear) = (TEXT_OFFSET as u32, TEXT_ADDRESS + LINEAR);
    image.u32s(52, &[1, text_offset, text_linear, TEXT_ADDRESS, text_size, text_size, 5, 4096]);
    let (data_linear, data_size) = (DATA_ADDRESS + LINEAR, DATA.len() as u32);
    image.u32s(84, &[1, data as u32, data_linear, DATA_ADDRESS, data_size, DATA_MEMORY, 6, 4]);
    image.u32s(TEXT_OFFSET, &header(flags, rest));
    image.put(TEXT_OFFSET + 48, TEXT).put(data, DATA).put(strings, STRINGS);
    image.u32s(sections, &[0; 10]);
    image.u32s(sections + 40, &[0, 1, 6, text_linear, text_offset, text_size, 0, 0, 16, 0]);
    image.u32s(sections + 80, &[1, 3, 0, 0, strings as u32, STRINGS.len() as u32, 0, 0, 1, 0]);
    image.0
}

/// The address fields of [`by_addresses`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) header: u32,
    pub(crate) load: u32,
    pub(crate) load_end: u32,
    pub(crate) bss_end: u32,
    pub(crate) entry: u32,
}

impl Addresses {
    /// Sixteen bytes of the file are skipped, sixteen precede the header, code follows it, and zeros
    /// follow the file.
    pub(crate) const USUAL: Addresses = Addresses {
        header: 0x10_0010,
        load: 0x10_0000,
        load_end: 0x10_0080,
        bss_end: 0x10_2000,
        entry: 0x10_0040,
    };
}

/// A file that is no ELF and whose header, at 0x20, says where it goes. It is 0x100 bytes long, each
/// byte but the header's being its offset.
pub(crate) fn by_addresses(to: Addresses) -> Vec<u8> {
    let mut image = Bytes((0..=0xff).collect());
    let fields = [to.header, to.load, to.load_end, to.bss_end, to.entry];
    image.u32s(0x20, &header(0x1_0003, &fields));
    image.0
}

/// What [`bzimage`] is to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linux {
    pub(crate) version: u16,
    pub(crate) loadflags: u8,
    pub(crate) xloadflags: u16,
    pub(crate) initrd_last: u32,
    pub(crate) command_line_size: u32,
    pub(crate) relocatable: bool,
    pub(crate) preferred: u64,
    pub(crate) init_size: u32,
}

impl Linux {
    /// As Debian's kernels say it, but smaller.
    pub(crate) const USUAL: Linux = Linux {
        version: 0x20f,
        loadflags: 0x41,
        xloadflags: 0,
        initrd_last: 0x37ff_ffff,
        command_line_size: 2047,
        relocatable: true,
        preferred: 0x18_0000,
        init_size: 0x4_0000,
    };
}

/// The bytes of [`bzimage`]'s protected-mode part.
pub(crate) const LINUX_CODE: usize = 0x230;

/// A bzImage with two setup sectors.
pub(crate) fn bzimage(linux: Linux) -> Vec<u8> {
    let mut image = Bytes(vec![0; 3 * 512]);
    let code: Vec<u8> = (0..LINUX_CODE).map(|at| at as u8 ^ 0x5a).collect();
    image.put(0x1f1, &[2]).u32(0x1f4, (LINUX_CODE / 16) as u32).u16(0x1fe, 0xaa55);
    image.put(0x200, &[0xeb, 0x6a]).put(0x202, b"HdrS").u16(0x206, linux.version);
    image.put(0x210, &[0, linux.loadflags]).u32(0x214, 0x10_0000);
    image.u32(0x22c, linux.initrd_last).u32(0x230, 0x1_0000);
    image.put(0x234, &[u8::from(linux.relocatable), 12]).u16(0x236, linux.xloadflags);
    image.u32(0x238, linux.command_line_size);
    image.put(0x258, &linux.preferred.to_le_bytes()).u32(0x260, linux.init_size);
    image.put(3 * 512, &code);
    image.0
}
