// What a lower level's exceptions do while no guest can run: they are fatal.

.section .text, "ax"
.global lower_el_sync, lower_el_irq, lower_el_fiq, lower_el_serror, current_el_serror
lower_el_sync:
lower_el_irq:
lower_el_fiq:
lower_el_serror:
current_el_serror:
    b       fatal_serror
