#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "rometrace/summary/roles.hpp"
#include "rometrace/summary/summary_reader.hpp"
#include "summary/traced_fact.hpp"

namespace rometrace {

/// Calls `take(role, row, rows)` for each role that the grid's rows have: `rows` of them from `row` on, as the tokens
/// of a role stand together.
template <typename Take>
void for_each_role(const SummaryGrid& grid, const TracedFact& fact, const Take& take) {
  const auto role_at = [&](std::int64_t row) {
    return role_of(grid.positions ? (*grid.positions)[static_cast<std::size_t>(row)] : row, fact.subject, fact.tokens);
  };
  for (std::int64_t begin = 0, end = 0; begin < grid.rows; begin = end) {
    const auto role = role_at(begin);
    end = begin + 1;
    while (end < grid.rows && role_at(end) == role) ++end;
    if (role) take(static_cast<std::size_t>(*role), begin, end - begin);
  }
}

inline std::span<const double> rows_of(const SummaryGrid& grid, std::int64_t begin, std::int64_t count) {
  return std::span(grid.scores)
      .subspan(static_cast<std::size_t>(begin * grid.cells()), static_cast<std::size_t>(count * grid.cells()));
}

}  // namespace rometrace
