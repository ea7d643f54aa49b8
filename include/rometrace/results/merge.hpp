#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// What a merge takes as it is.
struct MergeRules {
  bool allow_gaps = false;      ///< facts that no file has
  bool allow_overlaps = false;  ///< facts that several files have: the line of the file named first stays
};

/// What a merge found.
struct MergeReport {
  std::int64_t selected = 0;       ///< facts in the whole selection
  std::int64_t lines = 0;          ///< facts written
  std::int64_t overlaps = 0;       ///< lines left out because a file named earlier has the fact
  std::string missing;             ///< which facts are missing and why, in words; empty: none
  std::vector<std::string> notes;  ///< a line each: files whose end is torn
};

/// Merges the results of a batch's shards, each in the order of its facts, into one file of the whole: the header with
/// "shard" null, then the lines as they stand, by "order". The merge of all shards is the file that one process would
/// have written but for times, and `rometrace --facts` can go on with it if nothing is missing before its end. Files of
/// the whole, and merged ones, can be merged too. Streams: memory is for one line of each file.
///
/// What is read goes to `write`, in pieces; it is of no use if this throws. Throws Error naming file and line: not a
/// batch's results, headers that differ in anything but the shard, damage before a file's end, a file that rometrace is
/// writing, and, unless `rules` allow it, facts that no file has (the first ones, and the shard to be run again) or
/// that two have. Two lines of one fact must have the same status even where overlaps are allowed: if one was traced
/// and the other skipped, the runs were not of the same thing. Throws Interrupted.
MergeReport merge_results(std::span<const std::filesystem::path> files, const MergeRules& rules,
                          const std::function<void(std::string_view)>& write, const std::stop_token& stop = {});

}  // namespace rometrace
