/* y[row][n] (+)= bias[n] + sum over k of x[row][k] * w[k][n]. Blocks of outputs stay in registers. */
static void dense(const float *x, int x_row, int x_step, int rows, int depth, int width, const float *w,
                  const float *bias, float *y, int add) {
    for (int n = 0; n < width; n += DENSE_BLOCK) {
        const int left = width - n < DENSE_BLOCK ? width - n : DENSE_BLOCK;
        for (int row = 0; row < rows; ++row) {
            const float *from = x + row * x_row;
            float *to = y + row * width + n;
            float sums[DENSE_BLOCK] = {0};
            if (left == DENSE_BLOCK) {
                for (int k = 0; k < depth; ++k) {
                    const float value = from[k * x_step];
                    for (int j = 0; j < DENSE_BLOCK; ++j) {
                        sums[j] += value * w[k * width + n + j];
                    }
                }
            } else {
                for (int k = 0; k < depth; ++k) {
                    const float value = from[k * x_step];
                    for (int j = 0; j < left; ++j) {
                        sums[j] += value * w[k * width + n + j];
                    }
                }
            }
            for (int j = 0; j < left; ++j) {
                to[j] = (add ? to[j] : 0.0f) + (bias ? bias[n + j] : 0.0f) + sums[j];
            }
        }
    }
}
