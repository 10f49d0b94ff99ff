//! The example of dma-buf's buffers.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::example::dmabuf::main);
