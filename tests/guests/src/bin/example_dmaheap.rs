//! The VM that allocates in the example of dma-heaps.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::example::dmaheap::writer);
