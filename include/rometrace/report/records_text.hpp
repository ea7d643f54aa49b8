#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rometrace/report/json.hpp"
#include "rometrace/report/terminal.hpp"

namespace rometrace {

/// What a table of records has of one.
struct RecordRow {
  std::string fact;  ///< its id; empty of a prompt by itself
  std::string subject;
  std::string answer;
  std::string reason;  ///< why it was not traced, "skipped: other_answer"; empty where it was
  double high = 0;     ///< probability of the answer, clean
  double low = 0;      ///< corrupted
  std::string kind;    ///< of the first grid, or "neuron"; empty where there is no cell with an effect
  std::string token;   ///< of that grid's strongest cell; of a knockout its group
  std::string place;   ///< its layer; of a head "layer.head", of a neuron "layer:neuron"
  double effect = 0;   ///< its effect on the probability
};

/// As the sentences of a trace have it: of states before the last token, where others are listed.
RecordRow record_row(const TraceRecord& record);

/// Records for people: how many, and a table with a line for each. No line is wider than `style.columns` where that is
/// 40 or more: what does not fit is cut, and columns that find no room are left out. Text from the records is escaped.
/// Lines end in "\n".
std::string render_records(const std::vector<RecordRow>& rows, const TerminalStyle& style);

}  // namespace rometrace
