//! Addresses of EL2 as functions, files and lines.
//!
//! When EL2 stops in panic it prints `BACKTRACE <address>` lines on its UART, innermost first; the
//! names are in the ELF file on the host.

use std::fmt;
use std::path::Path;

use addr2line::Loader;

/// One function of a trace. A function that was inlined has an entry of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The address in the trace.
    pub address: u64,
    /// The name, demangled.
    pub name: String,
    /// File and line.
    pub place: String,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#012x}  {}\n              at {}", self.address, self.name, self.place)
    }
}

/// The addresses that a program printed.
pub fn addresses(uart: &str) -> Vec<u64> {
    uart.lines().filter_map(|line| parse(line.trim().strip_prefix("BACKTRACE ")?)).collect()
}

fn parse(number: &str) -> Option<u64> {
    u64::from_str_radix(number.split_whitespace().next()?.trim_start_matches("0x"), 16).ok()
}

/// The functions that contain these addresses. What is not known stays a number.
pub fn functions(program: &Path, addresses: &[u64]) -> Vec<Function> {
    let loader = Loader::new(program).ok();
    let mut functions = Vec::new();
    for &address in addresses {
        let before = functions.len();
        if let Some(loader) = &loader {
            collect(loader, address, &mut functions);
        }
        if functions.len() == before {
            functions.push(Function { address, name: "?".into(), place: "?".into() });
        }
    }
    functions
}

fn collect(loader: &Loader, address: u64, functions: &mut Vec<Function>) {
    let Ok(mut frames) = loader.find_frames(address) else { return };
    while let Ok(Some(frame)) = frames.next() {
        let Some(name) = frame.function else { continue };
        let name = name.demangle().map_or_else(|_| "?".into(), |name| short(&name));
        let place = frame.location.map_or_else(
            || "?".into(),
            |at| format!("{}:{}", at.file.unwrap_or("?"), at.line.unwrap_or(0)),
        );
        functions.push(Function { address, name, place });
    }
}

/// The name without the hash that makes it unique.
fn short(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 => path.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_among_other_text() {
        let uart =
            "\nPANIC at the disco\nBACKTRACE 0x40201234\r\nBACKTRACE 40205678 sp 7\nBACKTRACE x\n";
        assert_eq!(addresses(uart), [0x4020_1234, 0x4020_5678]);
    }

    #[test]
    fn an_unknown_address_stays_a_number() {
        let found = functions(Path::new("/nonexistent"), &[0x1000]);
        assert_eq!(found[0].address, 0x1000);
        assert_eq!(found[0].name, "?");
    }

    #[test]
    fn this_test_finds_itself() {
        let here = this_test_finds_itself as fn() as usize as u64;
        let program = std::env::current_exe().unwrap();
        // The test program may be position independent: then only the offset is in the file.
        let Ok(loader) = Loader::new(&program) else { return };
        if loader.find_symbol(here).is_some() {
            assert!(functions(&program, &[here])[0].name.contains("this_test_finds_itself"));
        }
    }

    #[test]
    fn hashes_are_cut_off() {
        assert_eq!(short("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(short("a::heap"), "a::heap");
    }
}
