//! A VM that makes every call on its queues in every form, and looks at every register.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::program!(guests::queues::registers::main);
