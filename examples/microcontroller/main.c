/* Reads rows of a CSV file through semihosting, pushes them step by step, and prints a forecast at the end. */
#include "forecast.h"

#include <stdio.h>
#include <stdlib.h>

#ifdef __arm__
extern void initialise_monitor_handles(void);
#endif

static forecast_state state;
static forecast_value forecast[FORECAST_HORIZON * FORECAST_CHANNELS];

/* One row of numbers, separated by commas; 0 for a heading or an empty line. */
static int read_row(char *line, forecast_value *values) {
    for (int i = 0; i < FORECAST_CHANNELS; ++i) {
        char *end;
        values[i] = (forecast_value)strtod(line, &end);
        if (end == line) {
            return 0;
        }
        line = *end == ',' ? end + 1 : end;
    }
    return 1;
}

int main(void) {
    static char line[4096];
    forecast_value values[FORECAST_CHANNELS];
    FILE *file;
#ifdef __arm__
    initialise_monitor_handles();
#endif
    if (forecast_selftest(&state) != FORECAST_OK) {
        puts("the golden windows are not forecast as they should be");
        return 1;
    }
    forecast_reset(&state);
    file = fopen("data.csv", "r");
    if (!file) {
        puts("there is no data.csv");
        return 1;
    }
    while (fgets(line, sizeof line, file)) {
        if (read_row(line, values) && forecast_push(&state, values) != FORECAST_OK) {
            puts("a row is not finite");
        }
    }
    fclose(file);
    if (forecast_now(&state, forecast) != FORECAST_OK) {
        puts("there are too few rows for a forecast");
        return 1;
    }
    for (int step = 0; step < FORECAST_HORIZON; ++step) {
        for (int i = 0; i < FORECAST_CHANNELS; ++i) {
            printf("%s%g", i ? "," : "", (double)forecast[step * FORECAST_CHANNELS + i]);
        }
        putchar('\n');
    }
    return 0;
}
