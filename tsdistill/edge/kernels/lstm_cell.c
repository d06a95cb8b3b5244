/* One step of one row; the gates stand as input, output, forget, cell. */
static void lstm_cell(const float *gates, float *cell, float *hidden, int n) {
    for (int i = 0; i < n; ++i) {
        cell[i] = gate_sigmoid(gates[2 * n + i]) * cell[i] + gate_sigmoid(gates[i]) * gate_tanh(gates[3 * n + i]);
        hidden[i] = gate_sigmoid(gates[n + i]) * gate_tanh(cell[i]);
    }
}
