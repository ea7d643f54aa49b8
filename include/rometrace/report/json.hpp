#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "rometrace/model/model_record.hpp"
#include "rometrace/report/token_texts.hpp"
#include "rometrace/study/answer_rule.hpp"
#include "rometrace/study/verdict.hpp"
#include "rometrace/text/counter_prompt.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// A text whose tokens' embeddings set a corruption's mean and covariance.
struct TextRecord {
  std::string name;  ///< of the file, without its folder
  std::string sha256;
  std::int64_t tokens = 0;
};

/// How it was run.
struct RunRecord {
  std::string device = "cpu";
  std::string dtype = "float32";
  int threads = 1;
  std::string engine = "plain";
  std::string noise_rule = "s3";   ///< in one spelling
  bool tf32 = false;               ///< GPU: float32 products rounded to TF32
  std::optional<TextRecord> text;  ///< whose tokens set the corruption's moments
  double seconds = 0;              ///< the trace alone: no loading, no writing

  /// "cuda" of "cuda:1": which one of a machine's it was changes nothing.
  std::string device_kind() const { return device.substr(0, device.find(':')); }
};

/// What was asked of a single prompt, beside TraceOptions. Of a batch's facts the header says it.
struct AskedFor {
  AnswerRule answer;                 ///< where no target was given
  std::vector<std::string> targets;  ///< as given
  std::optional<std::string> foil;   ///< as given
  bool special_tokens = false;       ///< parsed in the prompt
};

/// All that a result records.
struct TraceRecord {
  Verdict verdict;
  std::optional<FactReference> fact;  ///< in a batch
  Trace trace;                        ///< skipped: the clean run's numbers only; failed: nothing
  TracePrompt prompt;                 ///< failed: as far as it is known, empty text where it is not
  std::optional<CounterPrompt> counter;
  TraceOptions options;
  std::optional<AskedFor> asked;  ///< of a single prompt
  std::int64_t asked_tokens = 1;  ///< of the answer; it has fewer where the model ends its text
  TokenTexts texts;
  ModelRecord model;
  RunRecord run;
};

/// The result as an object of schema "rometrace/trace/1" (share/rometrace/schema/trace-1.schema.json).
/// A skipped one has nothing that needs a corrupted run, a failed one no tokens and no numbers; both have cause and
/// reason. Text that is not UTF-8 on its own (a character split over tokens) has U+FFFD in `tokens`, `answer` and
/// `prediction`; `token_bytes`, `answer_bytes` and `prediction_bytes` hold the bytes in hex, so that nothing is lost. A
/// number that does not exist (the standard error of a single draw) is null. Grids have a row for each of their
/// `positions`; a head's cells are lists over the heads.
nlohmann::ordered_json to_json(const TraceRecord& record);

/// Parts that other records share, beside `model`: `run` with the options that set its numbers, `fact`.
nlohmann::ordered_json to_json(const RunRecord& run, const TraceOptions& options);
nlohmann::ordered_json to_json(const FactReference& fact);

/// Puts what `options` ask for into `json`, as members: kinds, windows, positions, neurons, measures.
void add_settings(nlohmann::ordered_json& json, const TraceOptions& options);

}  // namespace rometrace
