/* Each row of n numbers as shares that sum to 1. */
static void softmax(const float *x, int rows, int n, float *y) {
    for (int row = 0; row < rows; ++row, x += n, y += n) {
        float top = x[0], sum = 0.0f;
        for (int i = 1; i < n; ++i) {
            top = x[i] > top ? x[i] : top;
        }
        for (int i = 0; i < n; ++i) {
            y[i] = expf(x[i] - top);
            sum += y[i];
        }
        for (int i = 0; i < n; ++i) {
            y[i] /= sum;
        }
    }
}
