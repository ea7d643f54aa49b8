#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>

#include "rometrace/facts/facts.hpp"
#include "rometrace/facts/shard.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/study/batch.hpp"
#include "rometrace/study/probe.hpp"

namespace rometrace {

/// What the lines of a results file have in common.
struct BatchRecord {
  enum class What { kTrace, kProbe };

  What what = What::kTrace;
  ModelRecord model;
  RunRecord run;                      ///< but for threads and seconds
  BatchOptions options;               ///< of kTrace; of kProbe only `special_tokens`
  std::optional<KnownRule> known_by;  ///< kTrace: --only known; kProbe: always
  std::span<const FactsSource> sources;
  Selection selection;
  std::int64_t selected = 0;  ///< facts chosen, of all shards
  std::optional<Shard> shard;
};

/// The first line of a results file, schema "rometrace/batch/1": all that has to be the same where a batch is gone on
/// with, and where files are merged (but for the shard). What cannot change a result beyond rounding and is no setting
/// of the study (threads, memory, facts that share a sweep) is left out.
nlohmann::ordered_json to_json(const BatchRecord& batch);

/// Parts of such a line that other batches have as well: which facts, and which part of them.
nlohmann::ordered_json facts_json(std::span<const FactsSource> sources, const Selection& selection,
                                  std::int64_t selected);
nlohmann::ordered_json shard_json(const std::optional<Shard>& shard);

}  // namespace rometrace
