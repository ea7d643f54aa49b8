#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rometrace/edit/edit_file.hpp"
#include "rometrace/edit/edited_fact.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/facts/shard.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// What the lines of edits, each from the same weights, have in common.
struct EditBatchRecord {
  /// Method, templates, hyperparameters, moment and model; neither requests nor matrices.
  Edit settings;
  /// The layers of each edit of a fact; empty: one edit, where a trace of the fact peaks.
  std::vector<std::vector<std::int64_t>> layers;
  bool force = false;                   ///< edits that a guard refuses were made all the same
  RunRecord run;                        ///< but for threads and seconds
  std::optional<TraceOptions> tracing;  ///< of the curve beside a sweep over layers
  std::span<const FactsSource> sources;
  Selection selection;
  std::int64_t selected = 0;  ///< facts chosen, of all shards
  std::optional<Shard> shard;
};

/// The first line of their file, schema "rometrace/batch/1" with the command "edit": see to_json(BatchRecord).
nlohmann::ordered_json to_json(const EditBatchRecord& batch);

/// An edit of a fact, in its layers; where there is a cause, it was not made.
struct EditAttempt {
  std::vector<std::int64_t> layers;
  std::string cause, reason;
  std::optional<EditedFact> fact;
  std::vector<EditedMatrix> matrices;
};

/// What restoring clean values at the subject's last token brings back of the old object.
struct TracingCurve {
  double high_score = 0, low_score = 0;
  std::vector<double> mlp, state;  ///< [L], of windows of layers around each, and of single states
};

/// A fact's line.
struct EditedFactRecord {
  std::string status;         ///< "edited", "skipped", "failed"
  std::string cause, reason;  ///< empty where it was edited
  FactReference fact;
  std::optional<std::string> new_object;  ///< as the facts file has it
  ModelRecord model;
  RunRecord run;
  std::vector<EditAttempt> edits;  ///< as EditBatchRecord::layers, where it was edited
  std::optional<TracingCurve> tracing;
};

/// Schema "rometrace/edited-fact/1" (share/rometrace/schema/edited-fact-1.schema.json).
nlohmann::ordered_json to_json(const EditedFactRecord& record, const Tokenizer& tokenizer);

}  // namespace rometrace
