/* Whether all numbers are finite as floats; looks at bits, so that -ffast-math cannot remove it. */
static int is_finite(const VALUE *x, int n) {
    for (int i = 0; i < n; ++i) {
        const float number = (float)x[i];
        uint32_t bits;
        memcpy(&bits, &number, sizeof bits);
        if ((bits & 0x7F800000u) == 0x7F800000u) {
            return 0;
        }
    }
    return 1;
}
