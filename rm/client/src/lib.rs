//! What a VM links to call the resource manager.
#![no_std]
