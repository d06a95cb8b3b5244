/* As conv, with weights of 8 bits: x[group][depth][steps] with w[out][depth][taps]; what lies outside counts as zero. */
static void conv_w8(const float *x, int steps, int groups, int depth, int out, int taps, const int8_t *w, const float *scale,
                 const float *bias, int pad, int stride, int dilation, int out_steps, float *y) {
    for (int o = 0; o < out; ++o) {
        const float *from = x + o / (out / groups) * depth * steps;
        for (int t = 0; t < out_steps; ++t) {
            float sum = 0.0f;
            for (int d = 0; d < depth; ++d) {
                for (int k = 0; k < taps; ++k) {
                    const int place = t * stride - pad + k * dilation;
                    if (place >= 0 && place < steps) {
                        sum += from[d * steps + place] * (float)w[(o * depth + d) * taps + k];
                    }
                }
            }
            y[o * out_steps + t] = (bias ? bias[o] : 0.0f) + (scale ? scale[o] : 1.0f) * sum;
        }
    }
}
