//! The client against recorded replies: what it sends, and what it makes of what comes back.

use rm_client::{
    Acceptance, Direct, DirectCall, DirectResult, Error, ErrorCode, Handle, ListFlags, NewParcel,
    Rights, Sanitize, Session, Transfer, Transport, TransportError, Vmid, grant, pages,
};

/// Answers the first request with `reply` and keeps what was sent.
struct Recorded {
    reply: Vec<u8>,
    sent: Vec<u8>,
}

impl Transport for Recorded {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        self.sent = request.to_vec();
        reply[..self.reply.len()].copy_from_slice(&self.reply);
        Ok(self.reply.len())
    }
}

fn session(reply: &[u8]) -> Session<Recorded> {
    Session::new(Recorded { reply: reply.to_vec(), sent: Vec::new() })
}

/// The reply to the first request of a session, with the given message id.
fn reply_to(message: [u8; 4], payload: &[u8]) -> Vec<u8> {
    [&[0x21, 2, 1, 0][..], &message, payload].concat()
}

const SHARE: [u8; 4] = [0x13, 0, 0, 0x51];
const ACCEPT: [u8; 4] = [0x11, 0, 0, 0x51];
const RECLAIM: [u8; 4] = [0x15, 0, 0, 0x51];
const GET_VMID: [u8; 4] = [0x24, 0, 0, 0x56];

#[test]
fn sharing_sends_the_lists_and_returns_the_handle() {
    let mut session = session(&reply_to(SHARE, &[0, 0, 0, 0, 5, 0, 0, 0]));
    let ranges = [pages(0x4100_0000, 2)];
    let acl = [grant(Vmid(3), Rights::RW), grant(Vmid(7), Rights::R)];
    assert_eq!(session.share(&NewParcel::new(&ranges, &acl).label(9).sanitized()), Ok(Handle(5)));

    let sent = [
        &[0x21, 1, 1, 0][..],
        &SHARE,
        &[0, 0, 1, 0, 9, 0, 0, 0],
        &[2, 0, 0, 0, 3, 0, 6, 0, 7, 0, 4, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0],
    ]
    .concat();
    assert_eq!(session.transport().sent, sent);
}

#[test]
fn requests_are_numbered_from_one() {
    let mut session = session(&reply_to(GET_VMID, &[0, 0, 0, 0, 3, 0, 0, 0]));
    assert_eq!(session.vmid(), Ok(Vmid(3)));
    // The recorded reply carries number 1, so it is not one to the second request.
    assert_eq!(session.vmid(), Err(Error::Malformed));
    assert_eq!(session.transport().sent[2..4], [2, 0]);
}

#[test]
fn a_refusal_names_its_code() {
    let mut refused = session(&reply_to(RECLAIM, &[0xb, 0, 0, 0]));
    assert_eq!(
        refused.reclaim(Handle(5), Sanitize::empty()),
        Err(Error::Refused(ErrorCode::MemoryInUse))
    );
    let mut refused = session(&reply_to(RECLAIM, &[0x99, 0, 0, 0]));
    assert_eq!(refused.reclaim(Handle(5), Sanitize::empty()), Err(Error::RefusedUnknown(0x99)));
}

#[test]
fn the_places_that_the_manager_chose_come_in_order() {
    let payload = [
        &[0, 0, 0, 0, 2, 0, 0, 0][..],
        &[0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0x60, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let mut session = session(&reply_to(ACCEPT, &payload));
    let wanted = Acceptance::new(Handle(5), Transfer::Share);
    let places: Vec<_> = session.accept(&wanted).unwrap().collect();
    assert_eq!(places, [pages(0x5000_0000, 1), pages(0x6000_0000, 2)]);
}

#[test]
fn a_reply_that_is_not_the_calls_is_refused() {
    let wanted = Acceptance::new(Handle(5), Transfer::Share);
    let replies = [
        // Empty, a header alone, another message, a request, a wrong version, more fragments to come.
        vec![],
        reply_to(ACCEPT, &[]),
        reply_to(SHARE, &[0; 8]),
        [&[0x21, 1, 1, 0][..], &ACCEPT, &[0; 8]].concat(),
        [&[0x22, 2, 1, 0][..], &ACCEPT, &[0; 8]].concat(),
        [&[0x21, 6, 1, 0][..], &ACCEPT, &[0; 8]].concat(),
        // A success without a list, and a list without its entries.
        reply_to(ACCEPT, &[0; 4]),
        reply_to(ACCEPT, &[0, 0, 0, 0, 1, 0, 0, 0]),
    ];
    for reply in replies {
        let mut session = session(&reply);
        assert_eq!(session.accept(&wanted).err(), Some(Error::Malformed), "{reply:x?}");
    }
}

#[test]
fn a_request_that_does_not_fit_is_not_sent() {
    let ranges = vec![pages(0x4100_0000, 1); 64];
    let acl = [grant(Vmid(7), Rights::RW)];
    let mut session = session(&[]);
    let refused = session.lend(&NewParcel::new(&ranges, &acl));
    assert_eq!(refused, Err(Error::Encode(rm_abi::EncodeError::BufferTooSmall)));
    assert!(session.transport().sent.is_empty());
}

/// Plays `results` to successive traps, and keeps the tokens that came with them.
fn traps(results: &[DirectResult]) -> (Result<usize, TransportError>, Vec<u64>) {
    let mut tokens = Vec::new();
    let mut results = results.iter();
    let mut direct = Direct(|call: &DirectCall| {
        tokens.push(call.token());
        *results.next().unwrap()
    });
    let outcome = direct.exchange(&[0; 8], &mut [0; 32]);
    (outcome, tokens)
}

#[test]
fn a_long_call_is_continued_unseen() {
    let again = |token| DirectResult { error: -2, length: 0, token };
    let done = DirectResult { error: 0, length: 12, token: 0 };
    assert_eq!(traps(&[again(7), again(7), again(8), done]), (Ok(12), vec![0, 7, 7, 8]));
}

#[test]
fn a_reply_that_was_not_written_is_fetched_once_more() {
    let kept = |error| DirectResult { error, length: 0, token: 9 };
    let done = DirectResult { error: 0, length: 12, token: 0 };
    assert_eq!(traps(&[kept(22), done]), (Ok(12), vec![0, 9]));
    assert_eq!(
        traps(&[kept(2), kept(2)]),
        (Err(TransportError::ReplyKept { error: 2, token: 9 }), vec![0, 9])
    );
    // Without a token nothing was carried out, and there is nothing to fetch.
    let refused = DirectResult { error: 22, length: 0, token: 0 };
    assert_eq!(traps(&[refused]), (Err(TransportError::Hypercall(22)), vec![0]));
}

const LIST: [u8; 4] = [5, 0, 0, 0x5e];
const HOLDERS: [u8; 4] = [9, 0, 0, 0x5e];

#[test]
fn entries_that_are_not_there_or_say_nothing_known_are_not_believed() {
    let holder = |stage| [4, 0, stage, 6, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    let told = |count: u8, entries: &[u8]| {
        let data = [&[0, 0, 0, 0, count, 0, 0, 0][..], entries].concat();
        let mut session = session(&reply_to(HOLDERS, &data));
        session.holders(Handle(5)).map(Iterator::count)
    };
    assert_eq!(told(0, &[]), Ok(0));
    assert_eq!(told(2, &[holder(1), holder(4)].concat()), Ok(2));
    assert_eq!(told(1, &[holder(1), holder(9)].concat()), Ok(1), "a longer reply may come");
    assert_eq!(told(2, &holder(1)), Err(Error::Malformed));
    assert_eq!(told(255, &holder(1)), Err(Error::Malformed));
    assert_eq!(told(1, &holder(7)), Err(Error::Malformed), "a stage that is none");
    let mut short = session(&reply_to(HOLDERS, &[0; 7]));
    assert_eq!(short.holders(Handle(5)).map(drop), Err(Error::Malformed));
}

#[test]
fn a_list_that_leads_in_a_circle_is_left() {
    let mut circle = session(&reply_to(LIST, &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(circle.list_part(ListFlags::empty(), 7).map(|part| part.next), Ok(Some(7)));
    let mut circle = Session::<_>::new(Circle);
    assert_eq!(circle.list_parcels(ListFlags::empty(), |_| {}), Err(Error::Malformed));
}

/// Answers every request with an empty part of a list that goes on at 7.
struct Circle;

impl Transport for Circle {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<usize, TransportError> {
        reply[..8].copy_from_slice(&request[..8]);
        reply[1] = 2;
        reply[8..20].copy_from_slice(&[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        Ok(20)
    }
}
