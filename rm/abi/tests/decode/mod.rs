//! Every decoder, asked about the same bytes.

use rm_abi::extension::{
    self, AttachRequest, CopyRequest, CopySegment, Count, CountersRequest, CpuAccessRequest,
    DetachRequest, DeviceInfo, Discovery, DmaRequest, HeapAllocRequest, HeapFreeRequest, HeapInfo,
    HeapRequest, Holder, LastRefusal, LeafInfo, LeafRequest, Limit, LimitsRequest, ListRequest,
    MapEntry, MapRequest, NameRequest, NotifySetRequest, ParcelEntry, ParcelEvent, ParcelInfo,
    ParcelRequest, RevokeRequest, SetPolicyRequest, SubscribeRequest, TrimRequest, VmEntry,
    VmsRequest, WindowRequest,
};
use rm_abi::memparcel::accept::{AcceptRequest, Accepted};
use rm_abi::memparcel::append::AppendRequest;
use rm_abi::memparcel::create::CreateRequest;
use rm_abi::memparcel::handle::HandleRequest;
use rm_abi::memparcel::lookup::LookupRequest;
use rm_abi::memparcel::notice::{BorrowerNews, Offer, Recall};
use rm_abi::memparcel::notify::NotifyRequest;
use rm_abi::vm::{VmExitRequest, VmExited, VmRequest, VmStatus, VmStopRequest, decode_empty};
use rm_abi::{Entry, Header, List, reply};

/// Reads every entry, which is out of bounds if the list is.
fn read_all<E: Entry>(list: &List<E>, payload: &[u8]) {
    assert_eq!(list.iter(payload).count(), list.len());
    assert!(list.at + list.len() * E::SIZE <= payload.len());
}

/// Asks them all, and reads whatever one believes to be there.
pub(crate) fn decode(bytes: &[u8]) {
    requests(bytes);
    extensions(bytes);
    answers(bytes);
}

/// What the protocol's calls carry.
fn requests(bytes: &[u8]) {
    if let Some(header) = Header::decode(bytes) {
        assert_eq!(header.encode()[..], bytes[..Header::SIZE]);
    }
    if let Ok(request) = CreateRequest::decode(bytes) {
        read_all(&request.acl, bytes);
        read_all(&request.sgl, bytes);
        read_all(&request.attributes, bytes);
    }
    if let Ok(request) = AcceptRequest::decode(bytes) {
        read_all(&request.acl, bytes);
        read_all(&request.sgl, bytes);
        read_all(&request.attributes, bytes);
    }
    if let Ok(request) = LookupRequest::decode(bytes) {
        read_all(&request.acl, bytes);
        read_all(&request.sgl, bytes);
        read_all(&request.attributes, bytes);
    }
    if let Ok(request) = AppendRequest::decode(bytes) {
        read_all(&request.sgl, bytes);
    }
    if let Ok(targets) = NotifyRequest::targets(bytes) {
        read_all(&targets, bytes);
    }
    let _ = (NotifyRequest::decode(bytes), HandleRequest::decode(bytes));
    let _ = (VmRequest::decode(bytes), VmStopRequest::decode(bytes));
    let _ = (VmExitRequest::decode(bytes), decode_empty(bytes));
}

/// What the extension's calls carry.
fn extensions(bytes: &[u8]) {
    if let Ok(CopyRequest { count }) = CopyRequest::decode(bytes) {
        let segments = (0..count as usize).map(|n| CopySegment::decode(bytes, n));
        assert_eq!(segments.count(), count as usize);
    }
    if let Ok(request) = NameRequest::decode(bytes) {
        assert!(request.name.as_str().is_some());
    }
    // A longer request asks for nothing more than a shorter one, or is refused.
    if extension::decode_empty(bytes).is_ok() {
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
    if let Ok(request) = SubscribeRequest::decode(bytes) {
        assert_eq!(SubscribeRequest::decode(&bytes[..4]), Ok(request));
        assert!(bytes[4..].iter().all(|byte| *byte == 0));
    }
    let _ = (ParcelRequest::decode(bytes), ListRequest::decode(bytes));
    let _ = (LimitsRequest::decode(bytes), RevokeRequest::decode(bytes));
    let _ = (NotifySetRequest::decode(bytes), WindowRequest::decode(bytes));
    let _ = (TrimRequest::decode(bytes), SetPolicyRequest::decode(bytes));
    let _ = (AttachRequest::decode(bytes), DetachRequest::decode(bytes));
    let _ = (DmaRequest::decode(bytes), CpuAccessRequest::decode(bytes));
    let _ = (HeapRequest::decode(bytes), HeapAllocRequest::decode(bytes));
    let _ = (HeapFreeRequest::decode(bytes), VmsRequest::decode(bytes));
    let _ = (MapRequest::decode(bytes), CountersRequest::decode(bytes));
    let _ = LeafRequest::decode(bytes);
}

/// What VMs are answered and told.
fn answers(bytes: &[u8]) {
    if let Some((_, lists)) = Offer::decode(bytes) {
        read_all(&lists.acl, bytes);
        read_all(&lists.sizes, bytes);
        read_all(&lists.attributes, bytes);
    }
    if let Some(accepted) = Accepted::decode(bytes) {
        read_all(&accepted.sgl, bytes);
    }
    let _ = reply::decode(bytes);
    let _ = (BorrowerNews::decode(bytes), Recall::decode(bytes));
    let _ = (Discovery::decode(bytes), ParcelEvent::decode(bytes));
    let _ = LastRefusal::decode(bytes).map(|refusal| refusal.holders().len());
    let _ = (ParcelInfo::decode(bytes), ParcelEntry::decode(bytes, 8));
    let _ = (Holder::decode(bytes, 4), Limit::decode(bytes, 8));
    let _ = (VmExited::decode(bytes), VmStatus::decode(bytes), HeapInfo::decode(bytes));
    let _ = (VmEntry::decode(bytes, 4), MapEntry::decode(bytes, 8), Count::decode(bytes, 4));
    let _ = (LeafInfo::decode(bytes), DeviceInfo::decode(bytes, 4));
}
