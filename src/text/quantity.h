/* SPDX-License-Identifier: Apache-2.0 */
/* quantity.h: Kubernetes resource quantities: "500m", "1.5", "128Mi", "2e3", "1E".
 * Source: k8s.io/apimachinery/pkg/api/resource (Quantity): decimal suffixes n u m k M G T P E, binary Ki to Ei, exponents. */
#ifndef TEXT_QUANTITY_H
#define TEXT_QUANTITY_H

#include "base/base.h"

/* What one unit of the integer stands for. */
enum quantity_scale { QUANTITY_ONE, QUANTITY_MILLI, QUANTITY_NANO };

/* Exact; what is finer than the scale is rounded up, away from zero, as Kubernetes does. INVALID_ARGUMENT when it is no quantity,
 * OUT_OF_RANGE when it does not fit. */
bool quantity_parse(const char *text, enum quantity_scale scale, int64_t *out, struct status *err);
/* Longest text with its NUL. */
#define QUANTITY_TEXT_MAX 32
/* The canonical text: the largest suffix that leaves a whole number. `binary`: Ki, Mi... (whole numbers only; a value
 * with a fraction is given in decimal). */
void quantity_format(int64_t value, enum quantity_scale scale, bool binary, char out[QUANTITY_TEXT_MAX]);

#endif
