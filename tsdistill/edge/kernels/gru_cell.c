/* One step of one row, from what the input and the hidden state give: update, reset, new. */
static void gru_cell(const float *given, const float *kept, float *hidden, int n) {
    for (int i = 0; i < n; ++i) {
        const float update = gate_sigmoid(given[i] + kept[i]);
        const float reset = gate_sigmoid(given[n + i] + kept[n + i]);
        const float fresh = gate_tanh(given[2 * n + i] + reset * kept[2 * n + i]);
        hidden[i] = (1.0f - update) * fresh + update * hidden[i];
    }
}
