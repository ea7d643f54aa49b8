#pragma once

#include <string>

#include "rometrace/report/calibration_json.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// The calibration for people: how many facts, a table of what each factor takes away, for each kind a table of the
/// peaks at the last subject token, and the recommendation. Probabilities are in percent. At most `style.columns` wide
/// where that is 79 or more; text from files is escaped. Lines end in "\n".
std::string render_calibration(const CalibrationRecord& calibration, const TerminalStyle& style);

/// "Recommended: --noise s3, as factor 3 is the smallest ...", or why none is: a sentence without its full stop.
std::string recommendation_text(const Recommendation& recommendation);

}  // namespace rometrace
