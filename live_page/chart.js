// NiceGUI's chart, which can also be removed before it is drawn, such as when a visitor leaves a page at once.
import echart from "nicegui-echart-component/echart.js";

export default {
  ...echart,
  async mounted() {
    await echart.mounted.call(this);
    if (this.isRemoved) {
      this.chart.dispose();
      this.resizeObserver.disconnect();
    }
  },
  beforeUnmount() {
    this.isRemoved = true;
    this.chart?.dispose();
  },
};
