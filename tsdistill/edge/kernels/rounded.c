/* A number on a fixed grid of 8 bits, as static INT8 has it. */
static float rounded(float x, float scale, float zero, float low, float high) {
    const float q = rintf(x / scale) + zero;
    return q > low ? (q < high ? q : high) : low;
}
