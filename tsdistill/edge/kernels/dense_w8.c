/* As dense, with weights of 8 bits: y[row][n] (+)= bias[n] + scale[n] * sum over k of x[row][k] * w[n][k]. */
static void dense_w8(const float *x, int x_row, int x_step, int rows, int depth, int width, const int8_t *w,
                     const float *scale, const float *bias, float *y, int add) {
    for (int row = 0; row < rows; ++row) {
        const float *from = x + row * x_row;
        float *to = y + row * width;
        for (int n = 0; n < width; ++n) {
            float sum = 0.0f;
            for (int k = 0; k < depth; ++k) {
                sum += from[k * x_step] * (float)w[n * depth + k];
            }
            to[n] = (add ? to[n] : 0.0f) + (bias ? bias[n] : 0.0f) + scale[n] * sum;
        }
    }
}
