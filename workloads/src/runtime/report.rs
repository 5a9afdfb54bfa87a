//! What the guest writes to the debug console: probes, the result, faults; and its exit. The format
//! is [`crate::protocol`]'s.

use super::guest::{Asm, Guest};
use crate::x86;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi};

/// The debug console's port, as the immediate of OUT.
const CONSOLE: i8 = 0xE9u8 as i8;
/// The exit port.
const EXIT: i8 = 0xF4u8 as i8;

/// The labels of the routines that [`Guest::finish`] adds.
pub(super) struct Routines {
    /// Prints EAX as eight hexadecimal digits.
    hex: DynamicLabel,
    /// Prints the text at ESI, up to a zero byte.
    text: DynamicLabel,
    /// Prints what probe ESI found: EAX seen, EDX expected.
    probe: DynamicLabel,
    /// Prints a fault and exits: on the stack are the vector, the error code and the frame.
    fault: DynamicLabel,
}

impl Routines {
    pub(super) fn new(asm: &mut Asm) -> Routines {
        Routines {
            hex: asm.new_dynamic_label(),
            text: asm.new_dynamic_label(),
            probe: asm.new_dynamic_label(),
            fault: asm.new_dynamic_label(),
        }
    }
}

impl Guest {
    /// Writes one byte to the debug console (ring 0). Changes AL.
    pub fn console_byte(&mut self, byte: u8) {
        x86!(self ; mov al, byte as i8 ; out CONSOLE, al);
    }

    /// Prints `text` (ring 0). Changes no general register.
    pub fn print(&mut self, text: &str) {
        let address = self.string(text);
        let routine = self.labels.text;
        x86!(self ; push esi ; mov esi, address ; call =>routine ; pop esi);
    }

    /// Prints EAX as eight hexadecimal digits (ring 0). Changes no general register.
    pub fn print_hex(&mut self) {
        let routine = self.labels.hex;
        x86!(self ; call =>routine);
    }

    /// Reports probe `name`: EAX holds what was seen, `expected` is what the architecture says.
    /// Changes no general register.
    pub fn probe(&mut self, name: &str, expected: u32) {
        x86!(self ; push edx ; mov edx, expected as i32);
        self.probe_edx(name);
        x86!(self ; pop edx);
    }

    /// Reports probe `name`: EAX holds what was seen, EDX what the architecture says. Changes no
    /// general register.
    pub fn probe_edx(&mut self, name: &str) {
        let address = self.string(name);
        let routine = self.labels.probe;
        x86!(self ; push esi ; mov esi, address ; call =>routine ; pop esi);
    }

    /// Puts a string with its zero byte into the data.
    fn string(&mut self, text: &str) -> i32 {
        let bytes: Vec<u8> = text.bytes().chain([0]).collect();
        self.data(&bytes) as i32
    }

    /// Ends the guest with `status`, whatever ring-0 code it stands in.
    pub fn exit(&mut self, status: u8) {
        x86!(self
            ; mov al, status as i8
            ; out EXIT, al
            ; stop:
            ; cli
            ; hlt
            ; jmp <stop
        );
    }

    pub(super) fn emit_result_and_exit(&mut self) {
        self.print("result ");
        self.print_hex();
        self.console_byte(b'\n');
        self.exit(0);
    }

    pub(super) fn emit_routines(&mut self) {
        self.emit_hex();
        self.emit_text();
        self.emit_probe();
        self.emit_fault();
    }

    fn emit_hex(&mut self) {
        let hex = self.labels.hex;
        x86!(self
            ; =>hex
            ; pushad
            ; mov ebx, eax
            ; mov ecx, 8
            ; next:
            ; rol ebx, 4
            ; mov eax, ebx
            ; and eax, 0xF
            ; cmp al, 10
            ; jb >digit
            ; add al, 39 // 'a' - 10 - '0'
            ; digit:
            ; add al, 48
            ; out CONSOLE, al
            ; dec ecx
            ; jnz <next
            ; popad
            ; ret
        );
    }

    fn emit_text(&mut self) {
        let text = self.labels.text;
        x86!(self
            ; =>text
            ; pushad
            ; next:
            ; mov al, [esi]
            ; inc esi
            ; test al, al
            ; jz >done
            ; out CONSOLE, al
            ; jmp <next
            ; done:
            ; popad
            ; ret
        );
    }

    fn emit_probe(&mut self) {
        let probe = self.labels.probe;
        let text = self.labels.text;
        let other = self.label();
        x86!(self ; =>probe ; pushad);
        self.print("probe ");
        x86!(self ; call =>text ; cmp eax, edx ; jne =>other);
        self.print(" ok\n");
        x86!(self ; popad ; ret ; =>other);
        self.print(" wrong ");
        self.print_hex();
        x86!(self ; mov bl, al);
        self.console_byte(b' ');
        x86!(self ; mov eax, edx);
        self.print_hex();
        self.console_byte(b'\n');
        x86!(self ; popad ; ret);
    }

    /// Reports a fault and exits, as the handlers do that the workload does not replace: on the stack
    /// are the vector, the error code (0 where there is none), and what the processor pushed.
    pub fn report_fault(&mut self) {
        let fault = self.labels.fault;
        x86!(self ; jmp =>fault);
    }

    fn emit_fault(&mut self) {
        let fault = self.labels.fault;
        x86!(self ; =>fault);
        self.print("fault ");
        for field in 0..3 {
            x86!(self ; mov eax, [esp + 4 * field]);
            self.print_hex();
            self.console_byte(b' ');
        }
        x86!(self ; mov eax, cr2);
        self.print_hex();
        self.console_byte(b'\n');
        self.exit(1);
    }

    /// One stub a vector: it pushes what the processor did not, and reports the fault.
    pub(super) fn emit_default_handlers(&mut self) -> Vec<DynamicLabel> {
        (0..=255).map(|vector| self.emit_default_handler(vector)).collect()
    }

    fn emit_default_handler(&mut self, vector: u8) -> DynamicLabel {
        // Intel SDM vol. 3, table 6-1: these push an error code.
        let pushes_error_code = matches!(vector, 8 | 10..=14 | 17);
        let fault = self.labels.fault;
        let stub = self.label();
        x86!(self ; =>stub);
        if !pushes_error_code {
            x86!(self ; push 0);
        }
        x86!(self ; push DWORD i32::from(vector) ; jmp =>fault);
        stub
    }
}
