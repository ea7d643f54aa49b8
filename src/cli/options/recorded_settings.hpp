#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace rometrace::cli {

/// A command line that takes what it does not say from a record (--from FILE, --id ID).
struct CompletedLine {
  std::vector<std::string> recorded;  ///< "--name=value", or "--name" of a flag: what the record adds
  std::set<std::string> names;        ///< of the options among these
};

/// What --from adds to a trace's or a batch's words (without the program's name): the settings of the record, but for
/// those that `words` give themselves and those that do not go with what `words` give. Nothing where there is no --from
/// among the words, or where --self-check is. Throws Error naming the file: not a record of a trace, an id
/// that is not there or one that is missing, an edited model without its edit files.
std::optional<CompletedLine> complete_from_record(const std::vector<std::string>& words);

}  // namespace rometrace::cli
