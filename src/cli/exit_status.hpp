#pragma once

namespace rometrace::cli {

constexpr int kDone = 0;
constexpr int kSomeNotTraced = 1;  ///< a prompt skipped by --expect; a batch in which facts failed
constexpr int kCouldNotRun = 2;
constexpr int kInterrupted = 130;

}  // namespace rometrace::cli
