//! A board's UART on this computer: a serial port, which is usually an adapter on USB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Result, anyhow};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::termios::{
    ControlModes, OptionalActions, SpecialCodeIndex, ioctl_tiocexcl, isatty, tcgetattr, tcsetattr,
};

/// Bits per second of every board's console; `hyp::board::Uart` says the same.
const BAUD: u32 = 115_200;

/// A port that is open.
#[derive(Debug)]
pub struct Port(File);

impl Port {
    /// Opens a port: 115,200 bits a second, 8 data bits, no parity, one stop bit, nothing translated,
    /// no waiting for a modem.
    pub fn open(path: &Path) -> Result<Self> {
        // Without O_NONBLOCK, opening would wait for a carrier that no board gives.
        let flags = (OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let file = file.map_err(|error| explain(path, &error, &Computer::default()))?;
        if !isatty(&file) {
            return Err(anyhow!("{} is no serial port", path.display()));
        }
        set_up(&file)
            .map_err(|error| anyhow!("{} cannot be set to {BAUD} 8N1: {error}", path.display()))?;
        Ok(Self(file))
    }

    /// What comes, from a thread of its own. It ends when the port goes away.
    pub fn bytes(&self) -> io::Result<Receiver<Vec<u8>>> {
        Ok(chunks(self.0.try_clone()?))
    }

    /// For what is typed.
    pub fn writer(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

fn set_up(file: &File) -> io::Result<()> {
    let mut settings = tcgetattr(file)?;
    settings.make_raw();
    settings.set_speed(BAUD)?;
    let frame = ControlModes::CSIZE | ControlModes::PARENB | ControlModes::CSTOPB;
    settings.control_modes.remove(frame | ControlModes::CRTSCTS);
    settings.control_modes.insert(ControlModes::CS8 | ControlModes::CLOCAL | ControlModes::CREAD);
    // A read waits for one byte, however long that takes.
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(file, OptionalActions::Now, &settings)?;
    fcntl_setfl(file, fcntl_getfl(file)? - OFlags::NONBLOCK)?;
    // Two programs would each see half of the log. Not every kernel and port can do this.
    let _ = ioctl_tiocexcl(file);
    Ok(())
}

/// Reads on a thread of its own, so that waiting can have a limit.
pub fn chunks(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(64);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match from.read(&mut buffer) {
                Ok(length @ 1..) if sender.send(buffer[..length].to_vec()).is_ok() => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    });
    receiver
}

/// Whether this path is a device rather than a file that can be read to its end.
pub fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device())
}

/// Where a computer says who may use its ports.
struct Computer {
    dev: PathBuf,
    groups: PathBuf,
}

impl Default for Computer {
    fn default() -> Self {
        Self { dev: "/dev".into(), groups: "/etc/group".into() }
    }
}

/// What to do about a port that cannot be opened.
fn explain(path: &Path, error: &io::Error, computer: &Computer) -> anyhow::Error {
    let shown = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => match group(path, &computer.groups) {
            Some(group) => anyhow!(
                "you may not open {shown}; the members of group {group} may: `sudo usermod -aG \
                 {group} $USER`, then log out and in again"
            ),
            None => anyhow!("you may not open {shown}; as root you may"),
        },
        ErrorKind::ResourceBusy => {
            anyhow!("another program has {shown} open: `fuser {shown}` says which; end that first")
        }
        ErrorKind::NotFound => {
            let ports = ports(&computer.dev);
            match ports.is_empty() {
                true => anyhow!(
                    "there is no {shown}, and no other serial port: is the adapter plugged in?"
                ),
                false => anyhow!("there is no {shown}; there are {}", ports.join(", ")),
            }
        }
        _ => anyhow!("{shown} cannot be opened: {error}"),
    }
}

/// The name of the group that a file belongs to, unless it is root's own.
fn group(path: &Path, groups: &Path) -> Option<String> {
    let wanted = fs::metadata(path).ok()?.gid();
    let groups = fs::read_to_string(groups).ok()?;
    let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(wanted))?;
    (wanted != 0).then(|| line[0].to_owned())
}

/// The serial ports that a board may be at.
fn ports(dev: &Path) -> Vec<String> {
    const NAMES: [&str; 3] = ["ttyUSB", "ttyACM", "ttyAMA"];
    let entries = fs::read_dir(dev).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| NAMES.iter().any(|prefix| name.starts_with(prefix)))
        .map(|name| dev.join(name).display().to_string())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{InputModes, LocalModes, OutputModes};

    use super::*;

    /// A pair of terminals: what is written to one is read from the other.
    fn pair() -> (File, PathBuf) {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        (master.into(), path.into())
    }

    fn told(path: &Path, kind: ErrorKind, computer: &Computer) -> String {
        explain(path, &kind.into(), computer).to_string()
    }

    #[test]
    fn a_port_passes_every_byte_both_ways() {
        let (mut board, path) = pair();
        let port = Port::open(&path).unwrap();
        let bytes = port.bytes().unwrap();
        let all: Vec<u8> = (0..=255).collect();
        board.write_all(&all).unwrap();
        let mut came = Vec::new();
        while came.len() < all.len() {
            came.extend(bytes.recv_timeout(Duration::from_secs(10)).unwrap());
        }
        assert_eq!(came, all);
        port.writer().unwrap().write_all(b"\x01n\x03\r").unwrap();
        let mut typed = [0; 4];
        board.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"\x01n\x03\r");
    }

    #[test]
    fn a_port_has_the_form_that_boards_use() {
        let (_board, path) = pair();
        let port = Port::open(&path).unwrap();
        let settings = tcgetattr(&port.0).unwrap();
        assert_eq!((settings.output_speed(), settings.input_speed()), (BAUD, BAUD));
        let modes = settings.control_modes;
        assert!(modes.contains(ControlModes::CS8 | ControlModes::CLOCAL | ControlModes::CREAD));
        assert!(!modes.intersects(ControlModes::PARENB | ControlModes::CSTOPB));
        assert!(!modes.contains(ControlModes::CRTSCTS));
        assert!(!settings.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO));
        assert!(!settings.input_modes.intersects(InputModes::ICRNL | InputModes::IXON));
        assert!(!settings.output_modes.contains(OutputModes::OPOST));
    }

    #[test]
    fn a_port_that_goes_away_ends_what_is_read() {
        let (board, path) = pair();
        let bytes = Port::open(&path).unwrap().bytes().unwrap();
        drop(board);
        assert!(bytes.recv_timeout(Duration::from_secs(10)).is_err());
        assert!(!path.exists() || Port::open(&path).is_err());
    }

    #[test]
    fn what_is_no_port_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Port::open(file.path()).unwrap_err().to_string().ends_with("is no serial port"));
        assert!(is_device(Path::new("/dev/null")) && !is_device(file.path()));
    }

    #[test]
    fn a_missing_permission_names_the_group_and_the_command() {
        // Terminals belong to a group, as serial ports do; root's own is not worth joining.
        let (_board, path) = pair();
        let folder = tempfile::tempdir().unwrap();
        let groups = folder.path().join("group");
        let id = fs::metadata(&path).unwrap().gid();
        let computer = Computer { dev: folder.path().into(), groups: groups.clone() };
        fs::write(&groups, format!("other:x:9999:\ndialout:x:{id}:me\n")).unwrap();
        let advice = told(&path, ErrorKind::PermissionDenied, &computer);
        match id {
            0 => assert!(advice.ends_with("as root you may"), "{advice}"),
            _ => assert!(advice.contains("`sudo usermod -aG dialout $USER`"), "{advice}"),
        }
        fs::write(&groups, "other:x:9999:\nbroken\n").unwrap();
        let advice = told(&path, ErrorKind::PermissionDenied, &computer);
        assert!(advice.ends_with("as root you may"), "{advice}");
    }

    #[test]
    fn a_missing_port_is_answered_with_those_that_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let computer = Computer { dev: folder.path().into(), groups: "/etc/group".into() };
        let wanted = Path::new("/dev/ttyUSB7");
        let nothing = told(wanted, ErrorKind::NotFound, &computer);
        assert!(nothing.ends_with("is the adapter plugged in?"), "{nothing}");
        for name in ["ttyUSB0", "ttyACM1", "tty1"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let others = told(wanted, ErrorKind::NotFound, &computer);
        assert!(others.contains("ttyACM1, ") && others.ends_with("ttyUSB0"), "{others}");
        assert!(told(wanted, ErrorKind::ResourceBusy, &computer).contains("`fuser /dev/ttyUSB7`"));
    }
}
