/* What a Cortex-M does before main: the floating point unit on, variables filled or cleared. */
#include <stdint.h>
extern uint32_t __stack_top, __data_load, __data_start, __data_end, __bss_start, __bss_end;
extern int main(void);
extern void exit(int);
void Reset_Handler(void) {
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* the floating point unit is off after a reset */
    __asm__ volatile("dsb\n\tisb");
    for (uint32_t *to = &__data_start, *from = &__data_load; to < &__data_end;) { *to++ = *from++; }
    for (uint32_t *to = &__bss_start; to < &__bss_end;) { *to++ = 0; }
    exit(main());
}
__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {&__stack_top, (const void *)Reset_Handler};
/* What the C library calls before and after main in programs that have constructors. */
void _init(void) {}
void _fini(void) {}
