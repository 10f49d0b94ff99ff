//! Was that a pass?
//!
//! Semihosting lets a guest end QEMU with any exit code. So a run passes only if the exit code is
//! right and EL2's own UART, which is mapped to no VM, carried the verdict with the nonce that this
//! run's package held in memory that no VM can read. Each alone proves nothing.

use std::fmt;

/// How a QEMU process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Code(i32),
    /// By a signal: it crashed, or somebody killed it.
    Killed,
    /// By us, when its time was over.
    Timeout(u64),
    /// By us, because the user wanted it.
    Quit,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Killed => write!(f, "QEMU was killed by a signal"),
            Self::Quit => write!(f, "ended by the user"),
            Self::Timeout(seconds) => write!(f, "no end after {seconds} s"),
        }
    }
}

/// What a run is expected to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// End with a verdict of success.
    Pass,
    /// End with a verdict of failure whose reason contains this text.
    Failure(&'static str),
    /// EL2 says on its UART, in a line that starts with REFUSED, that it does not run the image, for a reason
    /// that contains this text.
    Refused(&'static str),
    /// EL2 panics, and its trace names this function.
    Panic(&'static str),
    /// EL2 takes an exception that it does not expect, and its trace names this function.
    Exception(&'static str),
}

/// The line that EL2 writes last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the run was a success.
    pub pass: bool,
    /// Why, or what was done.
    pub reason: String,
}

impl Verdict {
    /// The verdict of the run that has this nonce. A line with another nonce is none, and of two
    /// verdicts that contradict each other none counts.
    pub fn find(uart: &str, nonce: &str) -> Option<Self> {
        let mut found = uart.lines().filter_map(|line| Self::parse(line, nonce));
        let first = found.next()?;
        found.all(|other| other.pass == first.pass).then_some(first)
    }

    fn parse(line: &str, nonce: &str) -> Option<Self> {
        let rest = line.trim_end().strip_prefix("VERDICT ")?;
        let rest = rest.strip_prefix(nonce)?.strip_prefix(' ')?;
        let (word, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let pass = match word {
            "pass" => true,
            "fail" => false,
            _ => return None,
        };
        Some(Self { pass, reason: reason.to_owned() })
    }
}

/// What is known of a run when it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// How QEMU ended.
    pub end: End,
    /// Whether EL2 could set the exit code.
    pub semihosting: bool,
    /// Everything on EL2's UART.
    pub uart: &'a str,
    /// The nonce of the run.
    pub nonce: &'a str,
    /// The names of the functions in EL2's trace, if it printed one.
    pub trace: &'a [String],
}

/// Accepts a run that did what was expected, else says what is wrong with it.
pub fn judge(expect: Expect, evidence: &Evidence<'_>) -> Result<String, String> {
    let verdict = Verdict::find(evidence.uart, evidence.nonce);
    let code = match expect {
        Expect::Pass => 0,
        // Before the package is known to be whole, nothing allows semihosting: EL2 switches off.
        Expect::Refused(_) => 0,
        Expect::Failure(_) => 1,
        Expect::Panic(_) => 101,
        Expect::Exception(_) => 3,
    };
    // Without semihosting EL2 can only switch the machine off, which QEMU calls a success.
    let code = if evidence.semihosting { code } else { 0 };
    let said = |verdict: &Verdict| {
        let word = if verdict.pass { "pass" } else { "fail" };
        format!("EL2 says {word}: {}", verdict.reason)
    };
    if evidence.end != End::Code(code) {
        let said = verdict.as_ref().map_or_else(|| "EL2 gave no verdict".into(), said);
        return Err(format!("{}, expected exit code {code}; {said}", evidence.end));
    }
    match (expect, verdict) {
        (Expect::Pass, Some(verdict)) if verdict.pass => Ok(verdict.reason),
        (Expect::Failure(why), Some(verdict)) if !verdict.pass && verdict.reason.contains(why) => {
            Ok(verdict.reason)
        }
        (Expect::Pass | Expect::Failure(_), Some(verdict)) => Err(said(&verdict)),
        (Expect::Pass | Expect::Failure(_), None) => Err(format!(
            "{}, but EL2 gave no verdict with this run's nonce: somebody else ended it",
            evidence.end
        )),
        (Expect::Refused(why), _) => {
            let refused = |line: &str| line.starts_with("REFUSED ") && line.contains(why);
            let found = evidence.uart.lines().find(|line| refused(line.trim_end()));
            let found = found.map(|line| format!("EL2 says {line:?}"));
            found.ok_or_else(|| format!("EL2 does not say that it refuses the image: {why}"))
        }
        (Expect::Panic(name) | Expect::Exception(name), verdict) => {
            if let Some(verdict) = verdict.filter(|verdict| verdict.pass) {
                return Err(said(&verdict));
            }
            let named = evidence.trace.iter().any(|function| function.contains(name));
            let trace = || format!("the trace does not name {name}: {:?}", evidence.trace);
            if named { Ok(format!("the trace names {name}")) } else { Err(trace()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "00112233445566778899aabbccddeeff";
    const PASSED: &str = "\nVERDICT 00112233445566778899aabbccddeeff pass 3 VMs ended\n";

    fn evidence(code: i32, uart: &str) -> Evidence<'_> {
        Evidence { end: End::Code(code), semihosting: true, uart, nonce: NONCE, trace: &[] }
    }

    fn passes(evidence: &Evidence<'_>) -> bool {
        judge(Expect::Pass, evidence).is_ok()
    }

    #[test]
    fn exit_code_and_verdict_together_pass() {
        assert_eq!(judge(Expect::Pass, &evidence(0, PASSED)), Ok("3 VMs ended".into()));
    }

    #[test]
    fn a_good_exit_code_alone_is_forged() {
        assert!(!passes(&evidence(0, "")));
        assert!(!passes(&evidence(0, "boot text\nVERDICT pass\n")));
    }

    #[test]
    fn a_verdict_without_the_nonce_is_forged() {
        assert!(!passes(&evidence(0, "\nVERDICT ffffffffffffffffffffffffffffffff pass all\n")));
        assert!(!passes(&evidence(0, "\nVERDICT  pass all\n")));
    }

    #[test]
    fn a_good_verdict_does_not_excuse_the_exit_code() {
        assert!(!passes(&evidence(1, PASSED)));
        let late = Evidence { end: End::Timeout(30), ..evidence(0, PASSED) };
        assert!(!passes(&late));
        let crashed = Evidence { end: End::Killed, ..evidence(0, PASSED) };
        assert!(!passes(&crashed));
    }

    #[test]
    fn a_verdict_stands_on_a_line_of_its_own() {
        let inside = format!("a guest wrote VERDICT {NONCE} pass\n");
        assert!(!passes(&evidence(0, &inside)));
        let returns = PASSED.replace('\n', "\r\n");
        assert!(passes(&evidence(0, &returns)));
    }

    #[test]
    fn contradicting_verdicts_are_none() {
        let both = format!("{PASSED}VERDICT {NONCE} fail audit\n");
        assert!(!passes(&evidence(0, &both)));
    }

    #[test]
    fn an_expected_failure_names_its_reason() {
        let failed = format!("\nVERDICT {NONCE} fail VM b exited with code 2\n");
        assert!(judge(Expect::Failure("code 2"), &evidence(1, &failed)).is_ok());
        assert!(judge(Expect::Failure("code 3"), &evidence(1, &failed)).is_err());
        assert!(judge(Expect::Failure("code 2"), &evidence(0, &failed)).is_err());
        assert!(judge(Expect::Failure(""), &evidence(1, PASSED)).is_err());
    }

    #[test]
    fn a_panic_counts_with_its_trace_only() {
        let trace = ["el2::deep_inside".to_owned()];
        let traced = Evidence { trace: &trace, ..evidence(101, "") };
        assert!(judge(Expect::Panic("deep_inside"), &traced).is_ok());
        assert!(judge(Expect::Panic("elsewhere"), &traced).is_err());
        assert!(judge(Expect::Exception("deep_inside"), &traced).is_err());
        assert!(judge(Expect::Panic("deep_inside"), &evidence(101, PASSED)).is_err());
    }

    #[test]
    fn without_semihosting_the_verdict_decides() {
        let off = Evidence { semihosting: false, ..evidence(0, PASSED) };
        assert!(passes(&off));
        let failed = format!("\nVERDICT {NONCE} fail audit\n");
        assert!(!passes(&Evidence { uart: &failed, ..off }));
        assert!(judge(Expect::Failure("audit"), &Evidence { uart: &failed, ..off }).is_ok());
    }
}
