//! The client on its message queues against a scripted manager: what it sends, and that it believes
//! nothing of what comes back that does not fit.

use std::collections::VecDeque;

use rm_abi::message::{MEM_RECALL, VM_GET_VMID};
use rm_abi::{Header, HypercallError, Kind, MAX_PAYLOAD, PACKET};
use rm_client::{
    Notice, Poll, QueueTrap, Queues, Received, Sent, Session, Transport, TransportError, Vmid, Wait,
};

/// What the script says when it is at its end.
const END: i64 = 77;

/// Answers in the order of its script, and keeps what was sent.
#[derive(Default)]
struct Script {
    /// The next receives; `None` is an empty queue.
    receives: VecDeque<Option<Vec<u8>>>,
    /// For so many sends the queue is full.
    full: u32,
    sent: Vec<(Vec<u8>, bool)>,
}

impl QueueTrap for &mut Script {
    fn send(&mut self, packet: &[u8], push: bool) -> Sent {
        if self.full > 0 {
            self.full -= 1;
            return Sent { error: HypercallError::MSGQUEUE_FULL, not_full: false };
        }
        self.sent.push((packet.to_vec(), push));
        Sent { error: HypercallError::OK, not_full: true }
    }

    fn receive(&mut self, into: &mut [u8; PACKET]) -> Received {
        let not_empty = self.receives.len() > 1;
        match self.receives.pop_front() {
            Some(Some(packet)) => {
                // A script may claim more bytes than a packet has.
                let kept = packet.len().min(PACKET);
                into[..kept].copy_from_slice(&packet[..kept]);
                Received { error: HypercallError::OK, size: packet.len(), not_empty }
            }
            Some(None) => {
                Received { error: HypercallError::MSGQUEUE_EMPTY, size: 0, not_empty: false }
            }
            None => Received { error: END, size: 0, not_empty: false },
        }
    }
}

fn script(receives: &[&[u8]]) -> Script {
    Script {
        receives: receives.iter().map(|packet| Some(packet.to_vec())).collect(),
        ..<_>::default()
    }
}

fn packet(kind: Kind, fragments: u8, sequence: u16, message: u32, payload: &[u8]) -> Vec<u8> {
    [&Header { kind, fragments, sequence, message }.encode(), payload].concat()
}

/// The reply to a session's first question for its VMID.
fn reply(vmid: u8) -> Vec<u8> {
    packet(Kind::Reply, 0, 1, VM_GET_VMID, &[0, 0, 0, 0, vmid, 0, 0, 0])
}

const NOTHING: Result<Vmid, rm_client::Error> =
    Err(rm_client::Error::Transport(TransportError::Hypercall(END)));

fn ask(script: &mut Script) -> Result<Vmid, rm_client::Error> {
    Session::<_>::new(Queues::new(script, Poll)).vmid()
}

/// Exchanges a request of `payload` bytes, with room for a reply of `room`.
fn exchange(script: &mut Script, payload: usize, room: usize) -> Result<Vec<u8>, TransportError> {
    let mut request = Header::request(5, 9).encode().to_vec();
    request.extend((0..payload).map(|index| index as u8));
    let mut buffer = vec![0; room];
    let length = Queues::new(script, Poll).exchange(&request, &mut buffer)?;
    Ok(buffer[..length].to_vec())
}

#[test]
fn a_long_request_goes_in_packets_and_only_the_last_is_pushed() {
    let mut script = script(&[&packet(Kind::Reply, 0, 9, 5, &[0; 4])]);
    exchange(&mut script, 500, 100).unwrap();
    let kinds: Vec<_> = script
        .sent
        .iter()
        .map(|(packet, push)| (Header::decode(&packet[..]).unwrap(), packet.len(), *push))
        .collect();
    let first = Header { fragments: 2, ..Header::request(5, 9) };
    let next = Header { kind: Kind::Continuation, ..first };
    assert_eq!(kinds, [(first, 240, false), (next, 240, false), (next, 8 + 36, true)]);
    let payload: Vec<u8> =
        script.sent.iter().flat_map(|(packet, _)| packet[8..].to_vec()).collect();
    assert_eq!(payload, (0..500).map(|index| index as u8).collect::<Vec<_>>());
}

#[test]
fn the_longest_request_is_sent_and_a_longer_one_is_not() {
    let answer = packet(Kind::Reply, 0, 9, 5, &[0; 4]);
    let mut longest = script(&[&answer]);
    exchange(&mut longest, MAX_PAYLOAD, 100).unwrap();
    assert_eq!(longest.sent.len(), 63);
    let mut longer = script(&[&answer]);
    assert_eq!(exchange(&mut longer, MAX_PAYLOAD + 1, 100), Err(TransportError::Malformed));
    assert_eq!(longer.sent, []);
}

#[test]
fn a_full_queue_is_tried_again_and_nothing_is_sent_twice() {
    let mut script = Script { full: 5, ..script(&[]) };
    script.receives.extend([None, None, Some(reply(3))]);
    assert_eq!(ask(&mut script), Ok(Vmid(3)));
    assert_eq!(script.sent.len(), 1);
}

#[test]
fn a_reply_in_pieces_is_joined_around_nothing_else() {
    let part = |kind, payload: &[u8]| packet(kind, 2, 9, 5, payload);
    let mut script = script(&[
        &part(Kind::Reply, &[0, 0, 0, 0]),
        &part(Kind::Continuation, &[1, 2]),
        &part(Kind::Continuation, &[3]),
    ]);
    let whole = exchange(&mut script, 0, 100).unwrap();
    assert_eq!(whole, packet(Kind::Reply, 0, 9, 5, &[0, 0, 0, 0, 1, 2, 3]));
}

#[test]
fn what_belongs_nowhere_is_dropped() {
    let whole = reply(3);
    let mut other_version = reply(9);
    other_version[0] = 0x22;
    let strays = [
        vec![],
        whole[..7].to_vec(),
        other_version,
        packet(Kind::Reply, 0, 2, VM_GET_VMID, &[0, 0, 0, 0, 9, 0, 0, 0]),
        packet(Kind::Reply, 0, 1, VM_GET_VMID + 1, &[0, 0, 0, 0, 9, 0, 0, 0]),
        packet(Kind::Request, 0, 1, VM_GET_VMID, &[0, 0, 0, 0, 9, 0, 0, 0]),
        packet(Kind::Continuation, 0, 1, VM_GET_VMID, &[0, 0, 0, 0, 9, 0, 0, 0]),
    ];
    for stray in &strays {
        assert_eq!(ask(&mut script(&[stray, &whole])), Ok(Vmid(3)), "{stray:x?}");
        assert_eq!(ask(&mut script(&[stray])), NOTHING, "{stray:x?}");
    }
}

#[test]
fn a_piece_of_something_else_ends_a_reply() {
    let first = packet(Kind::Reply, 1, 1, VM_GET_VMID, &[0, 0, 0, 0]);
    let right = packet(Kind::Continuation, 1, 1, VM_GET_VMID, &[3, 0, 0, 0]);
    assert_eq!(ask(&mut script(&[&first, &right])), Ok(Vmid(3)));
    let wrong = [
        packet(Kind::Continuation, 1, 2, VM_GET_VMID, &[9, 0, 0, 0]),
        packet(Kind::Continuation, 2, 1, VM_GET_VMID, &[9, 0, 0, 0]),
        packet(Kind::Continuation, 1, 1, VM_GET_VMID + 1, &[9, 0, 0, 0]),
    ];
    for wrong in &wrong {
        assert_eq!(ask(&mut script(&[&first, wrong])), NOTHING);
        assert_eq!(ask(&mut script(&[&first, wrong, &right])), NOTHING);
        assert_eq!(ask(&mut script(&[&first, wrong, &first, &right])), Ok(Vmid(3)));
    }
}

#[test]
fn a_size_beyond_the_packet_is_not_believed() {
    let mut long = reply(3);
    long.resize(10_000, 0);
    assert_eq!(ask(&mut script(&[&long])), Err(rm_client::Error::Malformed));
}

#[test]
fn a_reply_without_room_is_told_by_its_length() {
    let mut script = script(&[&packet(Kind::Reply, 0, 9, 5, &[0; 93])]);
    assert_eq!(exchange(&mut script, 0, 100), Err(TransportError::TooLong(101)));
}

#[test]
fn a_reply_that_nobody_waits_for_any_more_is_dropped() {
    let recall = packet(Kind::Notification, 0, 0, MEM_RECALL, &[8, 0, 0, 0, 1, 0, 0, 0]);
    let mut script = script(&[&reply(3), &recall]);
    let mut queues = Queues::new(&mut script, Poll);
    let Ok(Some(Notice::Recall(recall))) = queues.poll_notice() else { panic!("no recall") };
    assert_eq!((recall.handle.0, recall.tag), (8, 1));
}

/// Keeps the order in which a client waits.
#[derive(Default)]
struct Log(Vec<&'static str>);

impl Wait for &mut Log {
    fn enter(&mut self) {
        self.0.push("enter");
    }

    fn wait(&mut self) {
        self.0.push("wait");
    }

    fn leave(&mut self) {
        self.0.push("leave");
    }
}

#[test]
fn a_client_looks_again_after_it_announced_to_wait() {
    let order = |receives: &[Option<Vec<u8>>]| {
        let mut script = Script { receives: receives.iter().cloned().collect(), ..<_>::default() };
        let mut log = Log::default();
        assert_eq!(Session::<_>::new(Queues::new(&mut script, &mut log)).vmid(), Ok(Vmid(3)));
        log.0
    };
    assert_eq!(order(&[Some(reply(3))]), [""; 0]);
    assert_eq!(order(&[None, Some(reply(3))]), ["enter", "leave"]);
    assert_eq!(order(&[None, None, Some(reply(3))]), ["enter", "wait", "leave"]);
}

#[test]
fn no_packets_do_harm() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    for _ in 0..20_000 {
        let mut script = Script::default();
        for _ in 0..random(12) {
            let kind = [Kind::Continuation, Kind::Request, Kind::Reply, Kind::Notification];
            let message = [VM_GET_VMID, MEM_RECALL, 0x5100_0020, 7][random(4)];
            let payload: Vec<u8> = (0..random(260)).map(|_| random(4) as u8).collect();
            let mut bytes =
                packet(kind[random(4)], random(4) as u8, random(3) as u16, message, &payload);
            if random(8) == 0 {
                let at = random(8);
                bytes[at] = random(256) as u8;
            }
            if random(20) == 0 {
                bytes.truncate(random(9));
            }
            script.receives.push_back((random(6) > 0).then_some(bytes));
        }
        let mut session = Session::<_>::new(Queues::new(&mut script, Poll));
        let _ = session.vmid();
        while let Ok(Some(notice)) = session.poll_notice() {
            let _ = format!("{notice:?}");
        }
    }
}
