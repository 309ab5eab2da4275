//! What is counted of flow control: each time that one side is not read because the
//! other does not take what there is.

use super::Stream;
use crate::http::conn_manager::HcmStats;
use crate::upstream::stats::ClusterStats;

impl Stream {
    /// Counts the halves that have stopped or gone on reading since the last time.
    pub(super) fn note_flow_control(&mut self) {
        let upload = !self.upload.received && !self.upload.stopped && !self.has_upload_room();
        if upload != self.upload.paused {
            self.upload.paused = upload;
            self.count_upload(upload);
        }
        let download = self.reads_response() && !self.has_download_room();
        if download != self.download.paused {
            self.download.paused = download;
            self.count_download(download);
        }
    }

    fn count_upload(&self, paused: bool) {
        let (of_manager, of_cluster) = if paused {
            (
                HcmStats::downstream_flow_control_paused_reading_total,
                ClusterStats::upstream_flow_control_backed_up_total,
            )
        } else {
            (
                HcmStats::downstream_flow_control_resumed_reading_total,
                ClusterStats::upstream_flow_control_drained_total,
            )
        };
        self.hcm.stats.inc(of_manager);
        if let Some(cluster) = self.cluster_stats() {
            cluster.inc(of_cluster);
        }
    }

    fn count_download(&self, paused: bool) {
        if let Some(cluster) = self.cluster_stats() {
            cluster.inc(if paused {
                ClusterStats::upstream_flow_control_paused_reading_total
            } else {
                ClusterStats::upstream_flow_control_resumed_reading_total
            });
        }
    }
}
