/* x times the share of a normal distribution below x. */
static float gelu(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}
