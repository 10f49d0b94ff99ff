//! A VM that offers parcels to another one, which sleeps.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::queues::interrupts::waker);
