/* Products of 8-bit numbers in 32-bit sums: y[row][n] (+)= bias[n] + x_scale * scale[n] * sum over k of
 * (x[row][k] - x_zero) * w[n][k]. The sums of the weights, `totals`, take the zero point out of the loop. */
static void dense_i8(const uint8_t *x, float x_scale, int x_zero, int rows, int depth, int width, const int8_t *w,
                     const float *scale, const int32_t *totals, const float *bias, float *y, int add) {
    for (int n = 0; n < width; ++n) {
        const int8_t *weights = w + n * depth;
        for (int row = 0; row < rows; ++row) {
            const uint8_t *from = x + row * depth;
            float *to = y + row * width + n;
            int32_t sum = 0;
            for (int k = 0; k < depth; ++k) {
                sum += (int32_t)((int16_t)from[k] * (int16_t)weights[k]);
            }
            *to = (add ? *to : 0.0f) + (bias ? bias[n] : 0.0f) + (float)(sum - x_zero * totals[n]) * (x_scale * scale[n]);
        }
    }
}
