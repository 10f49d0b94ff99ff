//! Programs and drivers of different age: structs that are shorter or longer than expected.
//!
//! A struct of a UAPI may grow at its end, and a zero in a new field means what was before it. So an
//! older program's shorter struct is read as if it went on with zeros. A newer program's longer struct
//! can be served if what is unknown asks for nothing, that is if it is zero; `copy_struct_from_user` of
//! Linux answers `E2BIG` otherwise. dma-heaps were made before that rule and ignore the end unseen.
//!
//! | program's struct | read | written back |
//! |---|---|---|
//! | shorter | the rest is zero | its own length |
//! | equal | as it is | as it is |
//! | longer, the end is zero | what is known | what is known; the end stays |
//! | longer, the end is not zero | `E2BIG`, or as before with [`Tail::Ignored`] | as before |

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Errno;

/// What to do with the end of a struct that is longer than this driver's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tail {
    /// It must be zero, else the program asks for something that cannot be granted.
    MustBeZero,
    /// It is not looked at, as dma-heaps have it.
    Ignored,
}

/// Reads a struct from a copy of a program's, of the length that the program says.
pub fn read<S: FromBytes + IntoBytes>(from: &[u8], tail: Tail) -> Result<S, Errno> {
    let (known, unknown) = from.split_at(from.len().min(size_of::<S>()));
    if tail == Tail::MustBeZero && unknown.iter().any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    let mut value = S::new_zeroed();
    value.as_mut_bytes()[..known.len()].copy_from_slice(known);
    Ok(value)
}

/// Writes a struct over a program's, as much of it as the program has room for.
pub fn write<S: IntoBytes + Immutable>(value: &S, into: &mut [u8]) {
    let known = size_of::<S>().min(into.len());
    into[..known].copy_from_slice(&value.as_bytes()[..known]);
}

/// Reads a struct that ends in an array: its fixed part, and the `count` entries behind it.
///
/// The ioctl number has the size of one entry in it, whatever the count, so the driver reads the fixed
/// part first and then copies as much as [`array_size`] says. `EINVAL` for a count of zero or above
/// `limit`, `EFAULT` if there are fewer bytes than entries.
pub fn read_array<H: FromBytes, E: FromBytes>(
    from: &[u8],
    count: impl FnOnce(&H) -> u32,
    limit: u32,
) -> Result<(H, impl ExactSizeIterator<Item = E> + '_), Errno> {
    let (head, rest) = H::read_from_prefix(from).map_err(|_| Errno::EFAULT)?;
    let size = array_size::<E>(count(&head), limit)?;
    let entries = rest.get(..size).ok_or(Errno::EFAULT)?.chunks_exact(size_of::<E>());
    let entry = |bytes: &[u8]| {
        E::read_from_bytes(bytes).unwrap_or_else(|_| unreachable!("a chunk is as long as an entry"))
    };
    Ok((head, entries.map(entry)))
}

/// Bytes that the array of a struct has: `EINVAL` for a count of zero, above `limit`, or whose size does
/// not fit a number.
pub fn array_size<E>(count: u32, limit: u32) -> Result<usize, Errno> {
    if count == 0 || count > limit {
        return Err(Errno::EINVAL);
    }
    usize::try_from(count).ok().and_then(|n| n.checked_mul(size_of::<E>())).ok_or(Errno::EINVAL)
}
