#pragma once

namespace rometrace {

/// True where a corruption does too little for a trace to say much: the answer's probability falls by less than 5 % of
/// itself, by less than two standard errors of the corrupted run's, or is not a number. `low_standard_error` is NaN for
/// a single draw.
bool hardly_lowered(double high_score, double low_score, double low_standard_error);

}  // namespace rometrace
