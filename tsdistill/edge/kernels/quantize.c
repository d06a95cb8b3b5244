/* Rounds x to 8 bits over its own range, which always holds zero: x = scale * (q - zero). */
static void quantize(const float *x, int n, uint8_t *q, float *scale, int *zero) {
    float low = 0.0f, high = 0.0f, offset;
    for (int i = 0; i < n; ++i) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *scale = high > low ? (high - low) / 255.0f : 1.0f;
    offset = rintf(-low / *scale);
    *zero = offset > 0.0f ? (offset < 255.0f ? (int)offset : 255) : 0;
    for (int i = 0; i < n; ++i) {
        const float value = rintf(x[i] / *scale) + (float)*zero;
        q[i] = (uint8_t)(value > 0.0f ? (value < 255.0f ? value : 255.0f) : 0.0f); /* NaN becomes 0 */
    }
}
