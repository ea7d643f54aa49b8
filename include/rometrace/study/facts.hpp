#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace rometrace {

/// The subjects of a facts file, in order, with repeats: each record's "subject". Read are our own layout (an
/// object with "facts", and "schema": "rometrace/facts/1" if it names one) and lists of records (known_1000.json of the
/// ROME paper). Throws Error naming the file, the record's number (from 1) and its id: not of either layout, no
/// records, a subject that is missing, not a string or empty.
std::vector<std::string> read_subjects(const std::filesystem::path& facts_json);

}  // namespace rometrace
