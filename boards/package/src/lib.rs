//! The header that joins hypervisor, boot configuration and VM images in one image.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
