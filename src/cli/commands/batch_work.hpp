#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cli/options/options.hpp"
#include "rometrace/facts/facts.hpp"
#include "rometrace/facts/swap.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/model/model_record.hpp"
#include "rometrace/model/replicas.hpp"
#include "rometrace/report/batch_json.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/study/batch.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace::cli {

/// "no_object 1, other_answer 12"
std::string causes_text(const std::map<std::string, std::int64_t>& causes);

/// The facts that this process is to do.
struct Work {
  Facts facts;
  std::int64_t selected = 0;                      ///< of all shards
  std::vector<BatchItem> items;                   ///< of this shard; they point into `facts` and `swaps`
  std::vector<std::variant<Swap, NoSwap>> swaps;  ///< of the items, for --corrupt swap
};

/// The files that --facts names. Throws Error: one that is named twice.
std::vector<std::filesystem::path> facts_files(const std::vector<std::string>& names);

/// Selects among facts that have been read; `options.files` is not looked at. Throws Error as select(); with --strict a
/// bad record.
Work choose_work(Facts facts, const FactsOptions& options);

/// Reads the facts files and selects. Throws Error: a file named twice, as read_facts() and select(); with --strict a
/// bad record.
Work read_work(const Options& options);

/// What the run has in common, for the header and for each line, but for the fingerprint of the weights. Throws Error.
BatchRecord batch_record(const Options& options, ModelRecord recorded, const Decoder& model, const Tokenizer& tokenizer,
                         const Work& work);

/// A fact's line.
TraceRecord trace_record(const BatchRecord& batch, const Tokenizer& tokenizer, BatchResult&& result);

/// Tokens of the first prompt that has some.
std::size_t typical_length(const Work& work, const Tokenizer& tokenizer);

/// Bytes of rows that a sweep of the batch may hold, whose largest fact needs `least`. A batch that goes on must form
/// the same groups, so on the CPU it does not depend on what memory is free. Of several GPUs, the least of one. Throws
/// Error if --memory is less.
std::int64_t memory_for_batch(const Options& options, const Replicas& models, std::int64_t least);

}  // namespace rometrace::cli
