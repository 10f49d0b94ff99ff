//! Sizes as people write them.

/// `"64M"`, `"64 MiB"`, `"4096"`: a whole number and a unit, of which each letter means a power of 1024.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// The shortest exact way to write so many bytes.
pub(crate) fn text(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        let read = ["4096", "64M", "64 MiB", "1g", "4_096 KB", "0"].map(parse);
        let bytes = [4096, 64 << 20, 64 << 20, 1 << 30, 4 << 20, 0];
        assert_eq!(read, bytes.map(Some));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "-1", "1.5G", "64X", "99999999999G", "0x10", "1 2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_with_the_largest_unit_that_fits() {
        assert_eq!(
            [0, 4096, 6 << 20, 1 << 30, 4097].map(text),
            ["0 B", "4 KiB", "6 MiB", "1 GiB", "4097 B"]
        );
    }
}
