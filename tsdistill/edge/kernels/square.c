/* The product of a number with itself. */
static float square(float x) {
    return x * x;
}
