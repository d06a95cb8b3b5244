/* Each row of n numbers less its mean, over its deviation, times gain plus bias. */
static void layer_norm(const float *x, int rows, int n, const float *gain, const float *bias, float epsilon, float *y) {
    for (int row = 0; row < rows; ++row, x += n, y += n) {
        float mean = 0.0f, square = 0.0f;
        for (int i = 0; i < n; ++i) {
            mean += x[i];
        }
        mean /= (float)n;
        for (int i = 0; i < n; ++i) {
            square += (x[i] - mean) * (x[i] - mean);
        }
        square = 1.0f / sqrtf(square / (float)n + epsilon);
        for (int i = 0; i < n; ++i) {
            y[i] = (x[i] - mean) * square * gain[i] + (bias ? bias[i] : 0.0f);
        }
    }
}
