#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/report/json.hpp"

namespace rometrace {

/// How far two runs of one question may be apart and still be equal: a number by `relative` of the larger of both, or
/// of what it is read beside (a standard error of its score), and `absolute`. Logits, their differences and divergences
/// count as 10 at least, as their rounding is that of larger numbers; a rank may move by one, or by 1 %.
struct Rounding {
  double relative = 0;
  double absolute = 0;

  /// For what processors, block sizes and engines make of the same trace in a dtype: float64 1e-9 and 1e-12, float32
  /// 1e-4 and 1e-6, float16 0.02 and 2e-3, bfloat16 0.1 and 1e-2. Chosen, not measured between machines.
  static Rounding of_dtype(std::string_view dtype);
  /// `relative`, and a hundredth of it.
  static Rounding of_tolerance(double relative) { return {relative, relative / 100}; }
};

/// A number in which two records differ.
struct NumberDifference {
  std::string path;  ///< in the record: "grids.mlp.scores[3][7]"
  double was = 0;    ///< NaN where the record has null, or nothing there
  double is = 0;
  double excess = 0;  ///< the difference in units of what is allowed; infinite where one is no number
};

/// What the records of two runs have in common.
struct RecordComparison {
  std::int64_t numbers = 0;                 ///< that both have
  std::optional<NumberDifference> largest;  ///< by excess; none where all are the same to the last bit
  std::vector<NumberDifference> beyond;     ///< what is allowed, in the record's order
  std::vector<std::string> others;          ///< a sentence each: the prediction, tokens, what one lacks

  bool equal() const { return beyond.empty() && others.empty(); }
};

/// Compares what was measured: of the clean run, of grids and knockouts, measures, other targets and neurons; not what
/// was asked, nor times, versions and names. Both should be read_trace_record()'s. Neurons are compared by their names,
/// whatever their order; one that ranks as the last, within rounding, may be another.
RecordComparison compare_records(const TraceRecord& was, const TraceRecord& is, const Rounding& rounding);

}  // namespace rometrace
